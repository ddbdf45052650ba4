//! Holds variables and files of variables against what Compose's own library, compose-go, makes of them. The inputs and
//! results are those of its tests (July 2026): 102 of 104 texts and 97 of 98 files become the same. Where ours differ, the
//! reason is beside them.

use crate::compose::dotenv::{self, Format};
use crate::compose::template::Expander;

/// What becomes of a text: the result, or a word of the complaint.
type Outcome = Result<&'static str, &'static str>;

const FIRST: [(&str, &str); 3] = [("FOO", "first"), ("BAR", ""), ("JSON", "{\"json\":2}")];

const TEMPLATES: &[(&str, Outcome)] = &[
    ("$${foo}", Ok("${foo}")),
    ("foo", Ok("foo")),
    ("a $ string", Ok("a $ string")),
    ("^REGEX$", Ok("^REGEX$")),
    ("$}", Ok("$}")),
    ("$", Ok("$")),
    ("${", Err("missing")),
    ("${}", Err("name")),
    ("${ }", Err("name")),
    ("${ foo}", Err("name")),
    ("${foo }", Err("unknown way")),
    ("${foo!}", Err("unknown way")),
    ("$FOO-bar", Ok("first-bar")),
    ("This ${missing} var", Ok("This  var")),
    ("This ${BAR} var", Ok("This  var")),
    ("This $FOO var", Ok("This first var")),
    ("This ${FOO} var", Ok("This first var")),
    ("ok ${missing:-def}", Ok("ok def")),
    ("ok ${missing-def}", Ok("ok def")),
    ("${A:+${A},}B", Ok("B")),
    ("${A:-${B}}", Ok("")),
    ("${FOO?${B}}", Ok("first")),
    ("ok ${BAR:-def}", Ok("ok def")),
    ("ok ${FOO:-def}", Ok("ok first")),
    ("ok ${BAR-def}", Ok("ok ")),
    ("ok ${UNSET_VAR:+presence_value}", Ok("ok ")),
    ("ok ${UNSET_VAR+presence_value}", Ok("ok ")),
    ("ok ${FOO:+presence_value}", Ok("ok presence_value")),
    ("ok ${FOO+presence_value}", Ok("ok presence_value")),
    ("ok ${BAR+presence_value}", Ok("ok presence_value")),
    ("ok ${BAR:+presence_value}", Ok("ok ")),
    ("ok ${BAR:-/non:-alphanumeric}", Ok("ok /non:-alphanumeric")),
    ("-ok ${BAR:-defaultValue}", Ok("-ok defaultValue")),
    ("+ok ${UNSET:-${BAR-defaultValue}}", Ok("+ok ")),
    ("-ok ${FOO:-defaultValue}", Ok("-ok first")),
    (":-ok ${UNSET-defaultValue}", Ok(":-ok defaultValue")),
    (":-ok ${BAR-defaultValue}", Ok(":-ok ")),
    (":?ok ${BAR-defaultValue}", Ok(":?ok ")),
    (":?ok ${BAR:-defaultValue}", Ok(":?ok defaultValue")),
    (":+ok ${BAR:-defaultValue}", Ok(":+ok defaultValue")),
    ("+ok ${BAR-defaultValue}", Ok("+ok ")),
    ("?ok ${BAR:-defaultValue}", Ok("?ok defaultValue")),
    ("ok ${UNSET_VAR-$FOO}", Ok("ok first")),
    ("ok ${UNSET_VAR-${FOO}}", Ok("ok first")),
    ("ok ${UNSET_VAR-${FOO} ${FOO}}", Ok("ok first first")),
    ("ok ${BAR:-$FOO}", Ok("ok first")),
    ("ok ${BAR:-${FOO}}", Ok("ok first")),
    ("ok ${BAR:-${FOO} ${FOO}}", Ok("ok first first")),
    ("ok ${BAR+$FOO}", Ok("ok first")),
    ("ok ${BAR+$FOO ${FOO:+second}}", Ok("ok first second")),
    ("not ok ${UNSET_VAR:?Mandatory Variable Unset}", Err(": Mandatory Variable Unset")),
    ("not ok ${BAR:?Mandatory Variable Empty}", Err(": Mandatory Variable Empty")),
    ("not ok ${UNSET_VAR:?}", Err("required")),
    ("not ok ${UNSET_VAR?Mandatory Variable Unset}", Err(": Mandatory Variable Unset")),
    ("not ok ${UNSET_VAR?}", Err("required")),
    ("ok ${FOO:?err}", Ok("ok first")),
    ("ok ${FOO?err}", Ok("ok first")),
    ("ok ${BAR?err}", Ok("ok ")),
    ("ok ${SUBDOMAIN:-redis}.${FOO:?}", Ok("ok redis.first")),
    ("${UNSET_VAR?bar-baz}", Err(": bar-baz")),
    ("${UNSET_VAR-myerror?msg}", Ok("myerror?msg")),
    ("${FOO?bar-baz}", Ok("first")),
    ("${BAR:-default_value_for_empty_var}", Ok("default_value_for_empty_var")),
    ("${UNSET_VAR-default_value_for_unset_var}", Ok("default_value_for_unset_var")),
    ("${VARNAME:?val?ue}", Err(": val?ue")),
    ("${VARNAME?val:?ue}", Err(": val:?ue")),
    ("${VARNAME?va-lu+e:?e}", Err(": va-lu+e:?e")),
    ("${VARNAME?va+lu-e:?e}", Err(": va+lu-e:?e")),
    ("${VARNAME:-value}", Ok("value")),
    ("${VARNAME-va:-lu:?e}", Ok("va:-lu:?e")),
    ("${VARNAME-va+lu?e}", Ok("va+lu?e")),
    ("${VARNAME-va?lu+e}", Ok("va?lu+e")),
    ("${FOO:+va:?lu:-e}", Ok("va:?lu:-e")),
    ("${FOO+va:+lue}", Ok("va:+lue")),
    ("${FOO+va?lu-e}", Ok("va?lu-e")),
    ("${FOO+va-lu?e}", Ok("va-lu?e")),
    ("ok ${missing:-{\"json\":1}}", Ok("ok {\"json\":1}")),
    ("ok ${missing-{\"json\":1}}", Ok("ok {\"json\":1}")),
    ("ok ${JSON:-{\"json\":1}}", Ok("ok {\"json\":2}")),
    ("ok ${JSON-{\"json\":1}}", Ok("ok {\"json\":2}")),
    ("{{{ ${UNSET:-foo_} }}}", Ok("{{{ foo_ }}}")),
    ("{{{ ${UNSET:-foo-bar-value} }}}", Ok("{{{ foo-bar-value }}}")),
    ("{{{ ${UNSET:-foo?bar?value} }}}", Ok("{{{ foo?bar?value }}}")),
    ("{{{ ${UNSET:-foo:?bar:?value} }}}", Ok("{{{ foo:?bar:?value }}}")),
    ("{{{ ${UNSET:-foo} ${BAR:-DEFAULT_VALUE} }}}", Ok("{{{ foo DEFAULT_VALUE }}}")),
    ("{{{ ${BAR} }}}", Ok("{{{  }}}")),
    ("${UNSET:-baz} }}}", Ok("baz }}}")),
    ("${UNSET-baz} }}}", Ok("baz }}}")),
    ("{{{ ${UNSET:?foo_} }}}", Err(": foo_")),
    ("{{{ ${UNSET:?foo-bar-value} }}}", Err(": foo-bar-value")),
    ("{{{ ${UNSET:?foo} ${BAR:-DEFAULT_VALUE} }}}", Err(": foo")),
    ("${UNSET:?foo} ${BAR:?bar}", Err("UNSET is required: foo")),
    ("${UNSET:?baz} }}}", Err(": baz")),
    ("${UNSET?baz} }}}", Err(": baz")),
    ("${UNSET:-${BAR:-${ZOT:-qix}}}", Ok("qix")),
    ("${UNSET:-${BAR:-x}_test_${BAR:-y}}", Ok("x_test_y")),
    ("${UNSET:-${BAR:-x}_test}", Ok("x_test")),
    ("${UNSET:-${BAR:-${ZOT:-x}}_test}", Ok("x_test")),
    ("{{{ ${FOO:-foo} ${BAR:-DEFAULT_VALUE} }}}", Ok("{{{ first DEFAULT_VALUE }}}")),
    ("{{{ ${FOO} }}}", Ok("{{{ first }}}")),
    ("${FOO:-baz} }}}", Ok("first }}}")),
    ("${FOO-baz} }}}", Ok("first }}}")),
];

/// Compose puts variables into the message that asks for another one. Ours shows their names, because values may be
/// secret.
const OTHER_TEMPLATES: &[(&str, Outcome, &str)] = &[
    ("not ok ${UNSET_VAR:?Mandatory Variable ${FOO}}", Err(": Mandatory Variable ${FOO}"), "Mandatory Variable first"),
    ("not ok ${UNSET_VAR?Mandatory Variable ${FOO}}", Err(": Mandatory Variable ${FOO}"), "Mandatory Variable first"),
];

#[test]
fn variables_are_put_in_as_compose_does() {
    let lookup = |name: &str| FIRST.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let others = OTHER_TEMPLATES.iter().map(|(template, ours, _)| (*template, *ours));
    for (template, expected) in TEMPLATES.iter().copied().chain(others) {
        let found = Expander::with_budget(&lookup, 1_000).expand(template);
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found.text, expected, "{template}"),
            (Err(fault), Err(word)) => assert!(
                fault.message.ends_with(word) || !word.starts_with(':') && fault.message.contains(word),
                "{template}: {fault:?}"
            ),
            (found, expected) => panic!("{template}: {found:?}, not {expected:?}"),
        }
    }
}

/// Files of variables with what they set, one `NAME=value` a line. `ME=YES` is given.
const FILES: &[(&str, Outcome)] = &[
    (
        "OPTION_A=1\nOPTION_B=2\nOPTION_C= 3\nOPTION_D =4\nOPTION_E = 5\n456 = ABC\nOPTION_F = \nOPTION_G=\nOPTION_H = my string # Inline comment\n",
        Ok(
            "OPTION_A=1\nOPTION_B=2\nOPTION_C=3\nOPTION_D=4\nOPTION_E=5\n456=ABC\nOPTION_F=\nOPTION_G=\nOPTION_H=my string",
        ),
    ),
    ("ONE=1\nTWO='2'\nTHREE = \"3\"", Ok("ONE=1\nTWO=2\nTHREE=3")),
    ("export OPTION_A=2\nexport OPTION_B='\\n'\n", Ok("OPTION_A=2\nOPTION_B=\\n")),
    (
        "export OPTION_A='postgres://localhost:5432/database?sslmode=disable'\n",
        Ok("OPTION_A=postgres://localhost:5432/database?sslmode=disable"),
    ),
    (
        "OPTION_C=''\nOPTION_D='\\n'\nOPTION_G=\"\"\nOPTION_H=\"\\n\"",
        Ok("OPTION_C=\nOPTION_D=\\n\nOPTION_G=\nOPTION_H=\n"),
    ),
    ("OPTION_I = \"echo 'asd'\" # Inline comment\n", Ok("OPTION_I=echo 'asd'")),
    (
        "OPTION_J = 'first line\nsecond line\nand so on'\nOPTION_Z = \"last\"",
        Ok("OPTION_J=first line\nsecond line\nand so on\nOPTION_Z=last"),
    ),
    ("OPTION_K='Let\\'s go!'", Ok("OPTION_K=Let's go!")),
    ("OPTION_D = another with special è char\n", Ok("OPTION_D=another with special è char")),
    (
        "OPTION_A=1\nOPTION_B=${OPTION_A}\nOPTION_C=$OPTION_B\nOPTION_D=${OPTION_A}_${OPTION_B}\nOPTION_E=${OPTION_NOT_DEFINED}",
        Ok("OPTION_A=1\nOPTION_B=1\nOPTION_C=1\nOPTION_D=1_1\nOPTION_E="),
    ),
    ("ME=NO\nA=${ME}\nB=${ME:-1}", Ok("ME=NO\nA=YES\nB=YES")),
    ("OPTION_A=${OPTION_A:-1}\nOPTION_B=${OPTION_A}", Ok("OPTION_A=1\nOPTION_B=1")),
    ("FOO=test\nBAR=$FOO", Ok("FOO=test\nBAR=test")),
    ("FOO=test\nBAR=${FOO}bar", Ok("FOO=test\nBAR=testbar")),
    ("BAR=$FOO", Ok("BAR=")),
    ("FOO=test\nBAR=\"quote $FOO\"", Ok("FOO=test\nBAR=quote test")),
    ("BAR='quote $FOO'", Ok("BAR=quote $FOO")),
    ("FOO=\"foo\\$BAR\"", Ok("FOO=foo$BAR")),
    ("FOO=\"foo\\${BAR}\"", Ok("FOO=foo${BAR}")),
    ("FOO=test\nBAR=\"foo\\${FOO} ${FOO}\"", Ok("FOO=test\nBAR=foo${FOO} test")),
    ("URLS=\"stratum+tcp://a:3333\nstratum+tcp://b:443\"", Ok("URLS=stratum+tcp://a:3333\nstratum+tcp://b:443")),
    ("FOO =bar", Ok("FOO=bar")),
    ("FOO= bar", Ok("FOO=bar")),
    ("FOO=\"escaped\\\"bar\"", Ok("FOO=escaped\"bar")),
    ("FOO=\"\\\"quoted\\\"\"", Ok("FOO=\"quoted\"")),
    ("FOO=\"'d'\"", Ok("FOO='d'")),
    ("OPTION_A: 1", Ok("OPTION_A=1")),
    ("OPTION_A: Foo=bar", Ok("OPTION_A=Foo=bar")),
    ("OPTION_A=1:B", Ok("OPTION_A=1:B")),
    ("export exportFoo=2", Ok("exportFoo=2")),
    ("exportFOO=2", Ok("exportFOO=2")),
    ("export_FOO =2", Ok("export_FOO=2")),
    ("export.FOO= 2", Ok("export.FOO=2")),
    ("export\tOPTION_A=2", Ok("OPTION_A=2")),
    ("  export OPTION_A=2", Ok("OPTION_A=2")),
    ("\texport OPTION_A=2", Ok("OPTION_A=2")),
    ("export OPTION_A=\"export A\"", Ok("OPTION_A=export A")),
    ("FOO=\"bar\\nbaz\"", Ok("FOO=bar\nbaz")),
    ("FOO=a\\tb", Ok("FOO=a\\tb")),
    ("FOO=\"a\\tb\"", Ok("FOO=a\tb")),
    ("KEY=\"Z\\aZ\\bZ\\fZ\\nZ\\rZ\\tZ\\vZ\\\\Z\\0123Z\"", Ok("KEY=Z\x07Z\x08Z\x0cZ\nZ\rZ\tZ\x0bZ\\ZSZ")),
    ("FOO.BAR=foobar", Ok("FOO.BAR=foobar")),
    ("FOO=foobar=", Ok("FOO=foobar=")),
    ("FOO=bar ", Ok("FOO=bar")),
    ("FOO=bar # this is foo", Ok("FOO=bar")),
    ("FOO=bar #this is foo", Ok("FOO=bar")),
    ("FOO=bar #", Ok("FOO=bar")),
    ("FOO=123#not-an-inline-comment", Ok("FOO=123#not-an-inline-comment")),
    ("FOO=\"bar#baz\"", Ok("FOO=bar#baz")),
    ("FOO=\"bar#baz\"#", Ok("FOO=bar#baz")),
    ("FOO=\"bar#baz\" # comment", Ok("FOO=bar#baz")),
    ("FOO='bar#baz' # comment", Ok("FOO=bar#baz")),
    ("FOO=\"bar#baz#bang\" # comment", Ok("FOO=bar#baz#bang")),
    ("FOO=\"ba#r\"", Ok("FOO=ba#r")),
    ("FOO='ba#r'", Ok("FOO=ba#r")),
    ("FOO=\"bar\\n\\ b\\az\"", Ok("FOO=bar\n\\ b\x07z")),
    ("FOO=\"bar\\\\\\n\\ b\\az\"", Ok("FOO=bar\\\n\\ b\x07z")),
    ("FOO=\"bar\\\\r\\ b\\az\"", Ok("FOO=bar\\r\\ b\x07z")),
    ("FOO=\"bar\\nbaz\\\\\"", Ok("FOO=bar\nbaz\\")),
    (" KEY =value", Ok("KEY=value")),
    ("   KEY=value", Ok("KEY=value")),
    ("\tKEY=value", Ok("KEY=value")),
    ("KEY=\"\\0123\"", Ok("KEY=S")),
    ("KEY=\"\\x07\"", Ok("KEY=\\x07")),
    ("KEY=\"\\u12e4\"", Ok("KEY=\\u12e4")),
    ("KEY=\"\\U00101234\"", Ok("KEY=\\U00101234")),
    ("lol$wut", Err("character")),
    ("KEY=\"", Err("never closed")),
    ("KEY=\"value", Err("never closed")),
    ("KEY=\"value\\\"", Err("never closed")),
    ("KEY=\"value'", Err("never closed")),
    ("KEY='", Err("never closed")),
    ("KEY='value", Err("never closed")),
    ("KEY='value\\'", Err("never closed")),
    ("KEY='value\"", Err("never closed")),
    ("\n", Ok("")),
    ("\r\n", Ok("")),
    ("\t\t ", Ok("")),
    ("# Comment", Ok("")),
    ("\t # comment", Ok("")),
    ("# some comments\nfoo=\"\n  a\n  multine\n  value\n\"\nINVALID LINE\nzot=qix", Err("character")),
    ("foo=bar\nME\nbar=baz", Ok("foo=bar\nME\nbar=baz")),
    ("ME", Ok("ME")),
    ("VARIABLE_NOT_FOUND", Ok("VARIABLE_NOT_FOUND")),
    ("TEST=$ME", Ok("TEST=YES")),
    ("\u{feff}OPTION_A=1\nOPTION_B=2", Ok("OPTION_A=1\nOPTION_B=2")),
    (
        "VAR.WITH.DOTS=dots\nVAR_X=underscores\nVAR-WITH-DASHES=dashes",
        Ok("VAR.WITH.DOTS=dots\nVAR_X=underscores\nVAR-WITH-DASHES=dashes"),
    ),
    ("RESULT=${UNSET_VAR:-Default Value}", Ok("RESULT=Default Value")),
    ("EMPTY_VAR=\nRESULT=${EMPTY_VAR:-Default Value}", Ok("EMPTY_VAR=\nRESULT=Default Value")),
    ("EMPTY_VAR=\nRESULT=${EMPTY_VAR-Default Value}", Ok("EMPTY_VAR=\nRESULT=")),
    ("RESULT=${ME-Default Value}", Ok("RESULT=YES")),
    ("RESULT=${UNSET_VAR:?Test error}", Err("UNSET_VAR is required: Test error")),
    ("EMPTY_VAR=\nRESULT=${EMPTY_VAR:?Test error}", Err("EMPTY_VAR is required: Test error")),
    ("EMPTY_VAR=\nRESULT=${EMPTY_VAR?Test error}", Ok("EMPTY_VAR=\nRESULT=")),
    ("RESULT=${UNSET_VAR?Test error}", Err("UNSET_VAR is required: Test error")),
    (
        "a=b\na[1]=c\na.propertyKey=d\nárvíztűrő-TÜKÖR=ÁRVÍZTŰRŐ\n",
        Ok("a=b\na[1]=c\na.propertyKey=d\nárvíztűrő-TÜKÖR=ÁRVÍZTŰRŐ"),
    ),
    ("%!(EXTRA string)=foo", Err("character")),
];

/// Where ours differ, with what Compose makes of it.
const OTHER_FILES: &[(&str, Outcome, &str)] = &[
    // From its tests: a variable needs a name.
    ("=\"value\"", Err("name"), "a variable whose name is empty"),
    // From reading its code; nobody can mean these.
    ("A= # comment", Ok("A="), "the comment is the value"),
    ("A=\"b\" C", Err("follows"), "a second variable, C, on the same line"),
    ("A # comment", Ok("A"), "refused; a comment after a value is taken"),
];

#[test]
fn files_of_variables_are_read_as_compose_does() {
    let given = |name: &str| (name == "ME").then_some("YES");
    let others = OTHER_FILES.iter().map(|(text, ours, _)| (*text, *ours));
    for (text, expected) in FILES.iter().copied().chain(others) {
        match (dotenv::parse(text, Format::Compose, &given, &|_| None), expected) {
            (Ok(found), Ok(expected)) => {
                let show = |variable: &dotenv::Variable| match &variable.value {
                    Some(value) => format!("{}={value}", variable.name),
                    None => variable.name.clone(),
                };
                assert_eq!(found.iter().map(show).collect::<Vec<_>>().join("\n"), expected, "{text:?}");
            }
            (Err(faults), Err(word)) => assert!(faults[0].message.contains(word), "{text:?}: {faults:?}"),
            (found, expected) => panic!("{text:?}: {found:?}, not {expected:?}"),
        }
    }
    let faults = dotenv::parse(
        FILES.iter().find(|(text, _)| text.contains("INVALID")).unwrap().0,
        Format::Compose,
        &given,
        &given,
    );
    assert_eq!(faults.unwrap_err()[0].line, 7);
}
