//! Chroot: a prefix that is put in front of every path that goes out and taken off every path that comes in.

use std::sync::Arc;

use zk_proto::jute::Writer;
use zk_proto::path::{self, PathError};

/// A chroot; the default is none. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Root(Option<Arc<str>>);

impl Root {
    /// The chroot `path`; `""` and `"/"` mean none.
    pub(crate) fn new(path: &str) -> Result<Self, PathError> {
        if matches!(path, "" | "/") {
            return Ok(Root(None));
        }
        path::validate(path)?;
        Ok(Root(Some(path.into())))
    }

    /// The chroot `path` below this one.
    pub(crate) fn join(&self, path: &str) -> Result<Self, PathError> {
        path::validate(path)?;
        Ok(if path == "/" { self.clone() } else { Root(Some(self.full(path).into())) })
    }

    /// The prefix; empty when there is none.
    pub(crate) fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or("")
    }

    /// The server's name for `path`: never with a slash at the end, unless it is the root itself.
    pub(crate) fn full(&self, path: &str) -> String {
        match (self.as_str(), path) {
            ("", path) => path.to_owned(),
            (root, "/") => root.to_owned(),
            (root, path) => {
                let mut full = String::with_capacity(root.len() + path.len());
                full.push_str(root);
                full.push_str(path);
                full
            }
        }
    }

    /// Writes the server's name for `path` without building it first.
    pub(crate) fn put(&self, w: &mut Vec<u8>, path: &str) {
        match (self.as_str(), path) {
            ("", path) => w.put_str(path),
            (root, "/") => w.put_str(root),
            (root, path) => {
                w.put_len(root.len() + path.len());
                w.extend_from_slice(root.as_bytes());
                w.extend_from_slice(path.as_bytes());
            }
        }
    }

    /// The caller's name for the server's `full`. Whole components only: `/a` is not above `/ab`. What is
    /// not below the chroot (events of `/zookeeper/config`) comes back unchanged.
    pub(crate) fn strip<'p>(&self, full: &'p str) -> &'p str {
        match full.strip_prefix(self.as_str()) {
            Some("") => "/",
            Some(rest) if rest.starts_with('/') => rest,
            _ => full,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_by_whole_components() {
        let root = Root::new("/a").unwrap();
        assert_eq!(root.full("/"), "/a");
        assert_eq!(root.full("/b"), "/a/b");
        for (full, stripped) in
            [("/a", "/"), ("/a/b", "/b"), ("/ab", "/ab"), ("/zookeeper/config", "/zookeeper/config")]
        {
            assert_eq!(root.strip(full), stripped);
        }
        let none = Root::new("/").unwrap();
        assert_eq!((none.full("/x").as_str(), none.strip("/x"), none.strip("/")), ("/x", "/x", "/"));
        assert_eq!(root.join("/b").unwrap().full("/"), "/a/b");
        assert_eq!(root.join("/").unwrap(), root);
        assert!(Root::new("/a/").is_err() && root.join("b").is_err());
    }

    #[test]
    fn writes_what_full_builds() {
        for (root, path) in [("", "/"), ("", "/x"), ("/a", "/"), ("/a", "/x")] {
            let root = Root::new(root).unwrap();
            let (mut direct, mut built) = (Vec::new(), Vec::new());
            root.put(&mut direct, path);
            built.put_str(&root.full(path));
            assert_eq!(direct, built);
        }
    }
}
