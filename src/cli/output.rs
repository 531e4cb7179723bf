//! What commands print on stdout: for people, or for programs.

use anyhow::Context as _;
use serde::Serialize;
use std::env;
use std::io::{ErrorKind, IsTerminal as _, Write as _};

/// The width that text for people is wrapped to: of every terminal, and what reads well in a wide one.
pub(super) const WIDTH: usize = 78;

/// What stands between two columns of a table, as in kubectl's.
const GAP: &str = "   ";

/// The flag that all commands which print a result have.
#[derive(clap::Args, Clone, Copy, Debug)]
#[group(skip)]
pub(super) struct Args {
    /// What is printed
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(super) output: Format,
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people
    Table,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// Colours text, where that is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    is_on: bool,
}

// === impl Paint ===

impl Paint {
    /// Colour for a terminal only, and not against the user's will (<https://no-color.org>).
    pub(super) fn stdout() -> Self {
        let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { is_on: std::io::stdout().is_terminal() && !set("NO_COLOR") && !is_dumb }
    }

    /// For what is no terminal, whatever stdout is.
    pub(super) fn none() -> Self {
        Self { is_on: false }
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    pub(super) fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.is_on && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Prints to stdout.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    print_on(text).map(drop)
}

/// Prints to stdout; says whether anybody reads on. Who pipes it into `head` has read enough when that closes, which is
/// no error.
pub(super) fn print_on(text: &str) -> anyhow::Result<bool> {
    let mut stdout = std::io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        printed => printed.map(|()| true).context("write to stdout"),
    }
}

/// Rows under their columns, a line each. The last column is as wide as its texts are.
pub(super) fn table<const N: usize>(columns: [&str; N], rows: &[[String; N]], paint: Paint) -> String {
    let rows: Vec<_> = rows.iter().map(|row| row.each_ref().map(|cell| cell.replace('\n', " "))).collect();
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).chain([columns[at].len()]).max();
    let widths: [_; N] = std::array::from_fn(|at| width(at).unwrap_or_default());
    let line = |cells: [&str; N]| {
        let cells = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    };
    let lines = rows.iter().map(|row| line(row.each_ref().map(String::as_str)));
    [paint.bold(&line(columns))].into_iter().chain(lines).map(|line| line + "\n").collect()
}

/// Breaks text at spaces, so that no line is longer than `width` characters unless one word is; keeps its lines.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

/// A value as YAML.
pub(super) fn yaml(value: &impl Serialize) -> anyhow::Result<String> {
    serde_saphyr::to_string(value).context("write YAML")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{self, Notation};
    use serde_json::json;

    #[test]
    fn text_is_broken_at_spaces() {
        assert_eq!(wrap("one two three\n\nfour", 8), ["one two", "three", "", "four"]);
        assert_eq!(wrap("incomprehensible", 8), ["incomprehensible"]);
    }

    #[test]
    fn a_table_is_as_wide_as_what_is_in_it() {
        let rows = [["a", "é, long", "x\ny"], ["longer", "", ""]].map(|row| row.map(str::to_owned));
        let expected = "\
ONE      TWO       THREE
a        é, long   x y
longer
";
        assert_eq!(table(["ONE", "TWO", "THREE"], &rows, Paint::none()), expected);
        assert_eq!(table(["ONE", "TWO"], &[], Paint::none()), "ONE   TWO\n");
    }

    #[test]
    fn yaml_is_read_back_as_what_it_was() {
        let value = json!({
            "apiVersion": "v1", "kind": "Odd", "empty": [{}, []], "null": null, "no": "no", "a b": -1.5, "text": "x: #\n- y\u{1}é",
            "list": [[1, [2]], {"a": {"b": [true]}, "c": "1"}, "12"], "modelguard.dev/uses": "",
        });
        let text = yaml(&value).unwrap();
        let read = manifest::read(Notation::Yaml, &text).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&read[0].json).unwrap(), value, "{text}");
    }

    #[test]
    fn colour_is_only_added_where_it_is_on() {
        assert_eq!(Paint::none().good("x"), "x");
        assert_eq!(Paint { is_on: true }.good("x"), "\x1b[32mx\x1b[0m");
    }
}
