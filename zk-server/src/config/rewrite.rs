//! Changing an operator's file: the membership moves to a dynamic file, everything else stays as it was written,
//! comments and order included.

use super::properties::{self, PropertiesError};

/// What becomes of the text of a main file when the membership is in the file `dynamic`. Without the client port,
/// too, if `client_port_moved`: it is in the membership then. The text itself if nothing is to be changed.
///
/// # Errors
/// The text is no configuration.
pub(crate) fn point_to_dynamic(
    text: &[u8],
    dynamic: &str,
    client_port_moved: bool,
) -> Result<Vec<u8>, PropertiesError> {
    let entries = properties::parse(text)?;
    let lines = natural_lines(text);
    let mut keep = vec![true; lines.len()];
    let mut pointer = None;
    for entry in entries {
        let key = entry.key.trim();
        let is_pointer = key == POINTER;
        if !(is_pointer || is_membership(key) || client_port_moved && key.starts_with("clientPort")) {
            continue;
        }
        let first = entry.line - 1;
        if is_pointer {
            pointer = Some(first);
        }
        let mut at = first;
        while let Some(line) = lines.get(at) {
            keep[at] = false;
            at += 1;
            if !is_continued(line) {
                break;
            }
        }
    }
    let line = format!("{POINTER}={}\n", escaped(dynamic));
    let mut out = Vec::with_capacity(text.len() + line.len());
    for (at, text) in lines.iter().enumerate() {
        if keep[at] {
            out.extend_from_slice(text);
        } else if pointer == Some(at) {
            out.extend_from_slice(line.as_bytes());
        }
    }
    if pointer.is_none() {
        if !matches!(out.last(), None | Some(b'\n' | b'\r')) {
            out.push(b'\n');
        }
        out.extend_from_slice(line.as_bytes());
    }
    Ok(out)
}

const POINTER: &str = "dynamicConfigFile";

/// Whether a main file holds its membership itself.
pub(crate) fn holds_membership(text: &[u8]) -> bool {
    properties::parse(text).is_ok_and(|entries| entries.iter().any(|entry| is_membership(entry.key.trim())))
}

fn is_membership(key: &str) -> bool {
    key.starts_with("server.") || key.starts_with("group.") || key.starts_with("weight.") || key == "peerType"
}

/// The lines with their ends.
fn natural_lines(text: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut start = 0;
    for (at, byte) in text.iter().enumerate() {
        if *byte == b'\n' || (*byte == b'\r' && text.get(at + 1) != Some(&b'\n')) {
            lines.push(&text[start..=at]);
            start = at + 1;
        }
    }
    if start < text.len() {
        lines.push(&text[start..]);
    }
    lines
}

/// Whether the next line belongs to the same entry: an odd number of backslashes at the end.
fn is_continued(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// A value as a property file holds it.
fn escaped(value: &str) -> String {
    let mut out = String::new();
    let mut units = [0; 2];
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            ' '..='~' => out.push(c),
            _ => c.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str, client_port_moved: bool) -> String {
        let out = point_to_dynamic(text.as_bytes(), "/etc/zk/zoo.cfg.dynamic.100000003", client_port_moved);
        String::from_utf8(out.unwrap()).unwrap()
    }

    #[test]
    fn everything_but_the_membership_stays_as_it_was_written() {
        let text = "# Our ensemble\r\ntickTime=2000\r\nserver.1=a:1:2;2181\n! members\nserver.2 = \\\n   b:1:2\n\n\
                    clientPort=2181\nclientPortAddress : h\npeerType=observer\ngroup.1=1:2\nweight.1=1\nlast=1";
        assert_eq!(
            rewritten(text, false),
            "# Our ensemble\r\ntickTime=2000\r\n! members\n\nclientPort=2181\nclientPortAddress : h\nlast=1\n\
             dynamicConfigFile=/etc/zk/zoo.cfg.dynamic.100000003\n"
        );
        assert_eq!(
            rewritten(text, true),
            "# Our ensemble\r\ntickTime=2000\r\n! members\n\nlast=1\n\
             dynamicConfigFile=/etc/zk/zoo.cfg.dynamic.100000003\n"
        );
        assert!(holds_membership(text.as_bytes()));
    }

    #[test]
    fn a_pointer_is_replaced_where_it_stands() {
        let text = "a=1\ndynamicConfigFile=/etc/zk/zoo.cfg.dynamic.100000000\n# end\n";
        let once = rewritten(text, true);
        assert_eq!(once, "a=1\ndynamicConfigFile=/etc/zk/zoo.cfg.dynamic.100000003\n# end\n");
        assert_eq!(rewritten(&once, true), once);
        assert!(!holds_membership(once.as_bytes()));
    }

    #[test]
    fn a_path_with_odd_characters_is_read_back() {
        let out = point_to_dynamic(b"", "/zo\\o ü😀.cfg", false).unwrap();
        assert_eq!(properties::parse(&out).unwrap()[0].value, "/zo\\o ü😀.cfg");
    }
}
