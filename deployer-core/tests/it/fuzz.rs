//! A bounded run of the fuzz targets of this crate. `scripts/fuzz` runs them for longer.

#[cfg(feature = "compose")]
#[path = "../../../fuzz/entries/compose.rs"]
mod compose;
#[path = "../../../fuzz/entries/journal.rs"]
mod journal;
#[path = "../../../fuzz/entries/mutants.rs"]
mod mutants;

#[cfg(feature = "compose")]
#[test]
fn compose() {
    let words = [
        "services:",
        "image: x",
        "&a",
        "*a",
        "<<: *a",
        "${TAG:-",
        "${",
        "}",
        "$$",
        "!reset",
        "!override",
        "# next file\n",
        "services: {web: {extends: db}}",
        "include: [none.yaml]",
        "profiles: [x]",
        "!!binary",
        "null",
        "~",
        "x-deployer:",
        "depends_on:",
        "ports: ['1-65535']",
        "- ",
        "|\n",
        "\u{feff}",
        "---\n",
        "...\n",
        "? ",
        "\0",
        "1e999",
        "-1",
        "99999999999999999999",
        "10GiB",
        "5m30s",
        "replicas: 4294967296",
    ];
    mutants::run("compose", 8_000, &words, compose::run);
}

#[test]
fn journal() {
    let words = [
        "\"event\":\"opened\"",
        "\"event\":\"resumed\"",
        "\"event\":\"step-started\"",
        "\"event\":\"closed\"",
        "null",
        "\"seq\":18446744073709551615",
        "\"fence\":0",
        "\"format\":2",
        "\"after\":[4294967295]",
        "\"steps\":[]",
        "[[[[",
        "{\"a\":",
        "\\ud800",
        "\"attempt\":4294967295",
        "\"weight\":256",
        "\"duration\":18446744073709551615",
    ];
    mutants::run("journal", 6_000, &words, journal::run);
}
