//! Where the progress of a deployment is shown: bars on a terminal, lines elsewhere, JSON if asked for.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use deployer_core::{DeploymentRecord, Entry, Event, ServiceName};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::output;
use crate::story::{Line, Story};
use crate::verdict;

/// Shows one deployment.
#[derive(Debug)]
pub(crate) struct Show {
    story: Story,
    on: On,
}

#[derive(Debug)]
enum On {
    Terminal(Bars),
    Lines,
    Json,
}

impl Show {
    /// Progress goes to standard error, so that standard output has the verdict alone; JSON goes to standard output.
    pub(crate) fn new(json: bool) -> Self {
        let on = match (json, io::stderr().is_terminal()) {
            (true, _) => On::Json,
            (false, true) => On::Terminal(Bars::new()),
            (false, false) => On::Lines,
        };
        Self { story: Story::default(), on }
    }

    /// Takes in what happened before this process went on with the deployment.
    pub(crate) fn catch_up(&mut self, entries: &[Entry]) {
        self.story.catch_up(entries);
    }

    pub(crate) fn event(&mut self, event: &Event) -> io::Result<()> {
        if let On::Json = self.on {
            return output::json(event);
        }
        for line in self.story.tell(event) {
            match &mut self.on {
                On::Terminal(bars) => bars.line(&line, &self.story),
                _ if line.lasting => output::error(&format!("{line}\n")),
                _ => {}
            }
        }
        Ok(())
    }

    /// Says something of this program's own.
    pub(crate) fn note(&self, text: &str) {
        match &self.on {
            On::Terminal(bars) => bars.println(text),
            On::Lines => output::error(&format!("{text}\n")),
            On::Json => {}
        }
    }

    /// Shows how it ended.
    pub(crate) fn end(self, record: &DeploymentRecord) -> io::Result<()> {
        match self.on {
            On::Json => output::json(record),
            On::Lines => output::text(&verdict::text(record)),
            On::Terminal(bars) => {
                bars.clear();
                output::text(&verdict::text(record))
            }
        }
    }

    /// Stops showing it before it has ended.
    pub(crate) fn leave(self) {
        if let On::Terminal(bars) = self.on {
            bars.clear();
        }
    }
}

const WHOLE: &str = "{spinner:.cyan} {elapsed:>4}  {wide_msg}";
const BEFORE_THE_PLAN: &str = "  {spinner:.cyan} {prefix:<12} {wide_msg:.dim}";
const WITH_STEPS: &str = "  {spinner:.cyan} {prefix:<12} {bar:16.green/dim} {pos:>2}/{len:<2} {wide_msg:.dim}";

/// How often spinners turn.
const TICK: Duration = Duration::from_millis(100);

/// One bar for each service under one spinner for the whole, with the lines that last above them.
#[derive(Debug)]
struct Bars {
    all: MultiProgress,
    whole: ProgressBar,
    services: BTreeMap<ServiceName, ProgressBar>,
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::new();
        let whole = all.add(ProgressBar::new_spinner().with_style(style(WHOLE)));
        whole.set_message("looking around");
        whole.enable_steady_tick(TICK);
        Self { all, whole, services: BTreeMap::new() }
    }

    fn line(&mut self, line: &Line, story: &Story) {
        if line.lasting {
            self.println(&line.to_string());
        }
        let bar = match &line.service {
            None => &self.whole,
            // The plan leaves this service alone.
            Some(service) if story.steps(service) == Some((0, 0)) => return,
            Some(service) => self.services.entry(service.clone()).or_insert_with(|| {
                let bar = ProgressBar::new(0).with_style(style(BEFORE_THE_PLAN)).with_prefix(service.to_string());
                let bar = self.all.add(bar);
                bar.enable_steady_tick(TICK);
                bar
            }),
        };
        // Output of a build may hold what moves the cursor.
        bar.set_message(line.text.chars().filter(|c| !c.is_control()).collect::<String>());
        self.services.retain(|service, bar| match story.steps(service) {
            Some((0, 0)) => {
                bar.finish_and_clear();
                false
            }
            Some((done, steps)) => {
                if bar.length() == Some(0) {
                    bar.set_style(style(WITH_STEPS).progress_chars("━━─"));
                }
                bar.set_length(steps as u64);
                bar.set_position(done as u64);
                true
            }
            None => true,
        });
    }

    fn println(&self, text: &str) {
        // An error means that the terminal has gone; the deployment goes on without it.
        let _ = self.all.println(text);
    }

    fn clear(&self) {
        // A bar that still ticks would be drawn again over what comes next.
        for bar in self.services.values().chain([&self.whole]) {
            bar.finish_and_clear();
        }
        let _ = self.all.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // A template that does not parse would be a defect of this file; the default then shows less, but works.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
