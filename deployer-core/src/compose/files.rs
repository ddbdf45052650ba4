//! `configs` and `secrets` of a service: files that are put into its containers.

use super::cursor::{Cursor, Fields};
use super::report::Report;
use super::{Project, formats, keys};
use crate::model::{File, FileContent, SecretRef};

pub(super) fn read(report: &mut Report, project: &Project<'_>, service: &Fields<'_>, model: &str) -> Vec<File> {
    let mut files: Vec<File> = Vec::new();
    let mut add = |report: &mut Report, item: &Cursor<'_>, file: Option<File>| {
        if let Some(file) = file {
            report.mark(format!("{model}.files[{}]", files.len()), item);
            files.push(file);
        }
    };
    if let Some(cursor) = service.get("configs") {
        for item in report.items(&cursor) {
            let file = file(report, &item, "/", |name| project.configs.get(name).cloned().map(FileContent::Text));
            add(report, &item, file);
        }
    }
    if let Some(cursor) = service.get("secrets") {
        for item in report.items(&cursor) {
            let secret = |name: &str| Some(FileContent::Secret(SecretRef::new(project.secrets.get(name)?)));
            let file = file(report, &item, "/run/secrets/", secret);
            add(report, &item, file);
        }
    }
    files
}

/// The name of what is declared at the top, or a mapping with it. A target without a directory is in `home`.
fn file(
    report: &mut Report,
    item: &Cursor<'_>,
    home: &str,
    declared: impl Fn(&str) -> Option<FileContent>,
) -> Option<File> {
    let fields = if item.is_map() { Some(report.fields(item, &keys::FILE)?) } else { None };
    let (mut target, mut uid, mut gid, mut mode) = (None, None, None, None);
    let mut source = Some(item.clone());
    if let Some(fields) = &fields {
        target = fields.text(report, "target");
        uid = fields.number(report, "uid");
        gid = fields.number(report, "gid");
        mode = fields.get("mode").and_then(|cursor| report.mode(&cursor));
        source = fields.require(report, "source");
    }
    let source = source?;
    let name = report.text(&source)?;
    let Some(content) = declared(&name) else {
        let top = if home == "/" { "configs" } else { "secrets" };
        let help = format!("declare it under the top-level `{top}`");
        report.error_with_help(&source, format!("{name:?} is not declared"), help);
        return None;
    };
    let target = target.unwrap_or(name);
    let target = if target.starts_with('/') { target } else { format!("{home}{target}") };
    let file = File::text("", target);
    Some(File {
        content,
        uid: uid.unwrap_or(file.uid),
        gid: gid.unwrap_or(file.gid),
        mode: mode.unwrap_or(file.mode),
        ..file
    })
}

impl Report {
    /// What may be done with a file, as `chmod` takes it.
    pub(super) fn mode(&mut self, cursor: &Cursor<'_>) -> Option<u32> {
        self.parsed(cursor, "a mode such as `0440`", formats::mode)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{given, lines, read};
    use super::*;
    use crate::compose::{ComposeReader, SecretOrigin};

    fn app(service: &str, top: &str) -> String {
        format!("services: {{web: {{image: x, {service}}}}}\n{top}\n")
    }

    #[test]
    fn files_are_read_in_every_form() {
        let top = "configs: {c: {content: \"a=$A\"}, e: {environment: SECRET}}\n\
                   secrets: {s: {environment: SECRET}, f: {file: ./pass}, x: {external: true, name: there}}";
        let text = app(
            "configs: [c, {source: e, target: /etc/e, uid: 1, gid: \"2\", mode: 0440}], \
             secrets: [s, {source: f, target: pass}, {source: x, target: /x}]",
            top,
        );
        let app = read(&text).unwrap();
        let files = &app.spec.services["web"].workload.files;
        let secret = |name: &str, target: &str| File::secret(SecretRef::new(name), target);
        let e = File { uid: 1, gid: 2, mode: 0o440, ..File::text("hunter2", "/etc/e") };
        let expected = [
            File::text("a=a", "/c"),
            e,
            secret("s", "/run/secrets/s"),
            secret("f", "/run/secrets/pass"),
            secret("there", "/x"),
        ];
        assert_eq!(*files, expected);
        assert_eq!(app.secrets.len(), 2, "the external one is nobody's but the program's");
        assert!(matches!(&app.secrets["s"], SecretOrigin::Value(value) if value.expose() == "hunter2"));
        assert!(matches!(&app.secrets["f"], SecretOrigin::File(path) if path.ends_with("shop/pass")));
        assert!(!format!("{:?}", app.secrets).contains("hunter2"));
    }

    #[test]
    fn configs_are_read_from_their_files() {
        let text = app("configs: [c]", "configs: {c: {file: ./app.conf}}");
        let dir = given(&[("compose.yaml", &text), ("app.conf", "x = $A\n")]);
        let read = || ComposeReader::new().with_project_name("shop").read_dir(dir.path());
        // What is in the file is not ours to change.
        assert_eq!(read().unwrap().spec.services["web"].workload.files, [File::text("x = $A\n", "/c")]);
        std::fs::remove_file(dir.path().join("app.conf")).unwrap();
        assert!(read().unwrap_err().to_string().contains("app.conf does not exist"));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for (service, top, expected) in [
            ("configs: [none]", "", "configs[0]: \"none\" is not declared"),
            ("secrets: [none]", "", "secrets[0]: \"none\" is not declared"),
            (
                "configs: [{source: c, mode: 9}]",
                "configs: {c: {content: x}}",
                "configs[0].mode: \"9\" is not a mode such as `0440`",
            ),
            (
                "configs: [{source: c, uid: me}]",
                "configs: {c: {content: x}}",
                "configs[0].uid: \"me\" is not a whole number in range",
            ),
            ("configs: [c, c]", "configs: {c: {content: x}}", "configs[1]: two files are put at /c"),
            (
                "configs: [{source: c, target: /etc/}]",
                "configs: {c: {content: x}}",
                "configs[0]: \"/etc/\" is not an absolute path of a file inside the container",
            ),
            ("init: true", "configs: {c: {external: true}}", "configs.c.external: `external` is not supported"),
            ("init: true", "configs: {c: {}}", "configs.c: the config has no content"),
            (
                "init: true",
                "configs: {c: {content: x, environment: A}}",
                "configs.c: `content` and `environment` exclude each other",
            ),
            ("init: true", "configs: {c: {environment: NONE}}", "configs.c.environment: the variable NONE is not set"),
            ("init: true", "secrets: {s: {environment: NONE}}", "secrets.s.environment: the variable NONE is not set"),
        ] {
            assert_eq!(lines(&read(&app(service, top)).unwrap_err()), [expected], "{service} {top}");
        }
    }
}
