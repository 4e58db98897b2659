//! `-Dname=value`: Java process properties, as operators pass them to Apache today.

use super::error::PropertySource;

/// One `-Dname=value`.
#[derive(Clone, PartialEq, Eq)]
pub struct Property {
    /// Name, with or without the prefix `zookeeper.`.
    pub name: String,
    /// Value; empty for `-Dname`.
    pub value: String,
    /// Where it was given.
    pub source: PropertySource,
}

impl std::fmt::Debug for Property {
    /// Leaves the value out: it may be a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "-D{}=… ({:?})", self.name, self.source)
    }
}

/// The properties that apply beneath the configuration file: a key in the file wins over all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    properties: Vec<Property>,
}

impl Overrides {
    /// Adds `name=value`, the text after `-D`. Without `=` the value is empty, as in Java.
    pub fn define(&mut self, definition: &str, source: PropertySource) {
        let (name, value) = definition.split_once('=').unwrap_or((definition, ""));
        let property = Property { name: name.into(), value: value.into(), source };
        self.properties.push(property);
    }

    /// Adds every `-D` option of a flag variable such as `JVMFLAGS`, and ignores its other flags.
    ///
    /// Apache's scripts expand these variables unquoted: words end at white space, quotes are
    /// ordinary characters.
    pub fn define_flags(&mut self, flags: &str, source: PropertySource) {
        for definition in flags.split_whitespace().filter_map(|word| word.strip_prefix("-D")) {
            self.define(definition, source);
        }
    }

    /// All properties, weakest first: sorted by source, then in the order of their definition.
    pub fn in_order(&self) -> Vec<Property> {
        let mut properties = self.properties.clone();
        properties.sort_by_key(|property| property.source);
        properties
    }
}
