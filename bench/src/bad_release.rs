//! A release that cannot work, with each tool in turn: what it says and when, and what users see of it.

use std::fmt::Write as _;
use std::time::Duration;

use crate::Choice;
use crate::figures::{Section, table};
use crate::local::{Seen, watch};
use crate::machine;
use crate::site::get;
use crate::tools::{Stand, Tool, build_images};

/// How the release is broken, as the shop knows it, and in words.
const KINDS: [(&str, &str); 2] = [("exit", "ends at its start"), ("unhealthy", "never becomes healthy")];

pub(crate) async fn measure(choice: &Choice) -> Section {
    build_images().await;
    let mut text = format!(
        "## A release that cannot work\n\n`scripts/bench bad-release{}` on {}, {} replicas under the same load, once each. *Said* is \
         when the command ended and whether it called that a failure; *outage* from the first lost request to the last; *serves* what \
         answers when all is over.\n",
        choice.options(),
        machine::describe(),
        choice.replicas
    );
    let mut figures = "bad-release:".to_owned();
    for (broken, how) in KINDS {
        let mut rows = Vec::new();
        for tool in Tool::all(choice) {
            let stand = Stand::new(&tool, choice.replicas).await;
            let seen = watch(&stand.site, stand.command("v2", broken), "v1").await;
            let serves = match get(stand.site.place.http, "/version").await {
                Ok((200, version)) => version,
                Ok((status, _)) => format!("nothing ({status})"),
                Err(error) => format!("nothing ({error})"),
            };
            let row = row(&tool, &seen, &serves);
            println!("{how}: {}", row.join(" | "));
            write!(
                figures,
                " {}_{broken}_said_s={:.2} {0}_{broken}_lost={}",
                tool.key(),
                seen.command.as_secs_f64(),
                seen.lost
            )
            .unwrap();
            rows.push(row);
        }
        writeln!(text, "\nIt {how}:\n").unwrap();
        text.push_str(&table(&["tool", "said", "lost", "outage", "serves", "what it said"], &rows));
    }
    text.push_str(&choice.left_out());
    Section { name: "bad-release".to_owned(), text, figures, picture: None }
}

fn row(tool: &Tool, seen: &Seen, serves: &str) -> Vec<String> {
    let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    let said = if seen.status.success() { "called it done" } else { "failed" };
    vec![
        tool.name(),
        format!("{} after {}", said, seconds(seen.command)),
        format!("{} of {}", seen.lost, seen.sent),
        seconds(seen.outage),
        serves.to_owned(),
        words(&seen.said),
    ]
}

/// The beginning and the end of what a tool says, on one line.
fn words(said: &str) -> String {
    const EACH: usize = 100;
    let words: Vec<&str> = said.split_whitespace().collect();
    let words: Vec<char> = words.join(" ").replace('|', "/").chars().collect();
    if words.len() <= 2 * EACH {
        return words.into_iter().collect();
    }
    let (first, last) = (&words[..EACH], &words[words.len() - EACH..]);
    format!("{} ... {}", first.iter().collect::<String>(), last.iter().collect::<String>())
}
