//! Path rules.

/// Why a path is not valid for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The path is the empty string.
    #[error("path is empty")]
    Empty,
    /// The path does not begin with `/`.
    #[error("path must start with /")]
    NotAbsolute,
    /// The path ends with `/` and is not the root.
    #[error("path must not end with /")]
    TrailingSlash,
    /// Two slashes in a row.
    #[error("empty component at byte {0}")]
    EmptyComponent(usize),
    /// A component `.` or `..`.
    #[error("relative component at byte {0}")]
    RelativeComponent(usize),
    /// A character that no path may contain.
    #[error("invalid character {character:?} at byte {offset}")]
    InvalidCharacter {
        /// Byte offset.
        offset: usize,
        /// The character.
        character: char,
    },
}

/// Checks a path as Apache does for create, setData, setACL and check (`PathUtils.validatePath`). Since
/// Java looks at UTF-16 units, every character beyond U+FFFF is invalid.
pub fn validate(path: &str) -> Result<(), PathError> {
    let bytes = path.as_bytes();
    match bytes {
        [] => return Err(PathError::Empty),
        [b'/'] => return Ok(()),
        [b'/', .., b'/'] => return Err(PathError::TrailingSlash),
        [b'/', ..] => {}
        _ => return Err(PathError::NotAbsolute),
    }
    let mut component = 1;
    for i in 1..=bytes.len() {
        if i == bytes.len() || bytes[i] == b'/' {
            match &bytes[component..i] {
                [] => return Err(PathError::EmptyComponent(component)),
                b"." | b".." => return Err(PathError::RelativeComponent(component)),
                _ => component = i + 1,
            }
        }
    }
    if bytes.iter().all(|&b| (0x20..0x7f).contains(&b)) {
        return Ok(());
    }
    match path.char_indices().find(|&(_, c)| !allowed(c)) {
        Some((offset, character)) => Err(PathError::InvalidCharacter { offset, character }),
        None => Ok(()),
    }
}

fn allowed(c: char) -> bool {
    !matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}' | '\u{10000}'..)
}

/// The parent of a node and its name: `/a/b` gives `("/a", "b")`, `/a` gives `("/", "a")`. `None` for the
/// root and for what has no slash.
pub fn split(path: &str) -> Option<(&str, &str)> {
    let slash = path.rfind('/')?;
    let name = &path[slash + 1..];
    match (slash, name) {
        (0, "") => None,
        (0, _) => Some(("/", name)),
        _ => Some((&path[..slash], name)),
    }
}

/// A child's path.
pub fn join(parent: &str, name: &str) -> String {
    if parent == "/" { format!("/{name}") } else { format!("{parent}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_paths() {
        for path in ["/", "/a", "/a/b", "/...", "/.a", "/a..", "/\u{a0}", "/\u{d7ff}", "/\u{f900}", "/é"] {
            assert_eq!(validate(path), Ok(()), "{path:?}");
        }
    }

    #[test]
    fn invalid_paths() {
        for path in [
            "",
            "a",
            "a/b",
            "/a/",
            "//",
            "//a",
            "/a//b",
            "/.",
            "/..",
            "/a/.",
            "/a/./b",
            "/../a",
            "/a\0b",
            "/\u{1}",
            "/\u{1f}",
            "/\u{7f}",
            "/\u{9f}",
            "/\u{e000}",
            "/\u{f8ff}",
            "/\u{fff0}",
            "/\u{ffff}",
            "/😀",
        ] {
            assert!(validate(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn split_and_join() {
        assert_eq!(split("/a/b"), Some(("/a", "b")));
        assert_eq!(split("/a"), Some(("/", "a")));
        assert_eq!(split("/"), None);
        assert_eq!(split(""), None);
        assert_eq!(split("/a/"), Some(("/a", "")));
        assert_eq!(join("/", "a"), "/a");
        assert_eq!(join("/a", "b"), "/a/b");
    }
}
