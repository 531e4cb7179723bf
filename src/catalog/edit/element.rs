//! An element that is written anew, where its source cannot be copied: JSON on one line, which YAML reads as well.

use super::list::Shape;
use crate::catalog::item::{NAME, VERSION};
use crate::catalog::tree::{Node, Value};
use std::fmt::Write as _;

/// `node` as an element of a list of this shape.
pub(super) fn render(node: &Node<'_>, shape: Shape) -> String {
    let mut out = match shape {
        Shape::Brackets { .. } => String::new(),
        Shape::Lines { indent } => format!("{}- ", " ".repeat(indent)),
    };
    value(node, &mut out);
    out
}

fn value(node: &Node<'_>, out: &mut String) {
    match &node.value {
        Value::Null => out.push_str("null"),
        Value::Text(text) => quote(text, out),
        Value::List(nodes) => {
            separated(('[', ']'), nodes, out, value);
        }
        Value::Map(fields) => {
            // People look for name and version first; the order of the others has no meaning.
            let rank = |key: &str| [NAME, VERSION].iter().position(|first| *first == key).unwrap_or(2);
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|field| rank(&field.key));
            separated(('{', '}'), fields, out, |field, out| {
                quote(&field.key, out);
                out.push_str(": ");
                value(&field.node, out);
            });
        }
    }
}

fn separated<T>(
    (open, close): (char, char),
    parts: impl IntoIterator<Item = T>,
    out: &mut String,
    write: impl Fn(T, &mut String),
) {
    out.push(open);
    for (index, part) in parts.into_iter().enumerate() {
        out.push_str(if index == 0 { "" } else { ", " });
        write(part, out);
    }
    out.push(close);
}

/// Every scalar is quoted, for its text is what counts. What is not visible is escaped: YAML does not take all of it.
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' | '\u{10000}'.. => out.push(c),
            _ if c.is_alphanumeric() => out.push(c),
            _ => _ = write!(out, "\\u{:04x}", u32::from(c)),
        }
    }
    out.push('"');
}
