//! A bounded run of the fuzz targets of this crate. `scripts/fuzz` runs them for longer.

#[path = "../../../fuzz/entries/mutants.rs"]
mod mutants;
#[path = "../../../fuzz/entries/runtime.rs"]
mod runtime;

#[test]
fn runtime() {
    let words = [
        "# be_id be_name srv_name",
        "# pxname,svname",
        "description: ",
        "be=",
        "srv=",
        "master",
        "worker",
        "# old workers",
        "[failed: ",
        "18446744073709551615",
        "4294967295",
        "65536",
        "::1",
        ",,,,",
        "\r\n",
        "\n\n",
        "\u{fffd}",
        " ",
    ];
    mutants::run("runtime", 40_000, &words, runtime::run);
}
