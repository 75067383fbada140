//! All definitions that this daemon knows: its own and the user's.
//!
//! In: the built-in texts and a directory of `*.toml`. Out: definitions by name. Invariant: a user's definition
//! replaces the built-in one of the same name; two of the user's files never share a name.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::definition::Definition;
use crate::config::{ConfigError, Source};

/// Name and text of the definitions that come with the daemon.
pub(super) const BUILT_IN: &[(&str, &str)] = &[
    ("abb-b23", include_str!("../../devices/abb-b23.toml")),
    ("abl-emh", include_str!("../../devices/abl-emh.toml")),
    ("alfen-ng9xx", include_str!("../../devices/alfen-ng9xx.toml")),
    ("bender-cc612", include_str!("../../devices/bender-cc612.toml")),
    ("eastron-sdm630", include_str!("../../devices/eastron-sdm630.toml")),
    ("eastron-sdm72", include_str!("../../devices/eastron-sdm72.toml")),
    ("gavazzi-em24", include_str!("../../devices/gavazzi-em24.toml")),
    ("gavazzi-em340", include_str!("../../devices/gavazzi-em340.toml")),
    ("heidelberg-energy-control", include_str!("../../devices/heidelberg-energy-control.toml")),
    ("iec62056-21", include_str!("../../devices/iec62056-21.toml")),
    ("iec62056-21-asked", include_str!("../../devices/iec62056-21-asked.toml")),
    ("janitza-b23", include_str!("../../devices/janitza-b23.toml")),
    ("keba-p30", include_str!("../../devices/keba-p30.toml")),
    ("keba-p40", include_str!("../../devices/keba-p40.toml")),
    ("kostal-ksem", include_str!("../../devices/kostal-ksem.toml")),
    ("mennekes-amtron-compact", include_str!("../../devices/mennekes-amtron-compact.toml")),
    ("phoenix-charx", include_str!("../../devices/phoenix-charx.toml")),
    ("schneider-iem3000", include_str!("../../devices/schneider-iem3000.toml")),
    ("shelly-pro-3em", include_str!("../../devices/shelly-pro-3em.toml")),
    ("shelly-pro-3em-mqtt", include_str!("../../devices/shelly-pro-3em-mqtt.toml")),
    ("shelly-switch", include_str!("../../devices/shelly-switch.toml")),
    ("shelly-switch-mqtt", include_str!("../../devices/shelly-switch-mqtt.toml")),
    ("sml", include_str!("../../devices/sml.toml")),
    ("sunspec-203", include_str!("../../devices/sunspec-203.toml")),
    ("sunspec-213", include_str!("../../devices/sunspec-213.toml")),
    ("webasto-next", include_str!("../../devices/webasto-next.toml")),
];

/// A definition that cannot be used, or a directory that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// A file is wrong; the message names line and field.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// The directory of the user's definitions cannot be read.
    #[error("{}: the directory of device definitions cannot be read: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A name that stands for no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no device definition \"{name}\"; there are {known}")]
pub struct UnknownDevice {
    name: String,
    known: String,
}

/// Definitions by name.
#[derive(Debug, Clone)]
pub struct Catalog {
    definitions: BTreeMap<String, Arc<Definition>>,
}

impl Catalog {
    /// The built-in definitions, then those in `dir`, which replace and extend them. Files that do not end in
    /// `.toml` are passed over.
    pub fn load(dir: Option<&Path>) -> Result<Self, DefinitionError> {
        let mut definitions = BTreeMap::new();
        for (name, text) in BUILT_IN {
            let source = Source::new(PathBuf::from(format!("built-in {name}.toml")), (*text).to_owned());
            let definition = Definition::parse(&source)?;
            definitions.insert(definition.name.clone(), Arc::new(definition));
        }
        let mut own: BTreeMap<String, PathBuf> = BTreeMap::new();
        for path in dir.map(files).transpose()?.unwrap_or_default() {
            let read = fs::read_to_string(&path);
            let source = Source::new(path.clone(), read.as_ref().cloned().unwrap_or_default());
            if let Err(error) = read {
                return Err(source.whole(format!("cannot be read: {error}")).into());
            }
            let definition = Definition::parse(&source)?;
            if let Some(other) = own.insert(definition.name.clone(), path) {
                let problem = format!("\"{}\" is the name of {} already", definition.name, other.display());
                return Err(source.problem("name", problem).into());
            }
            definitions.insert(definition.name.clone(), Arc::new(definition));
        }
        Ok(Self { definitions })
    }

    /// The definition of this name; the error lists those that exist.
    pub fn find(&self, name: &str) -> Result<Arc<Definition>, UnknownDevice> {
        self.definitions.get(name).cloned().ok_or_else(|| UnknownDevice {
            name: name.to_owned(),
            known: self.definitions.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
        })
    }

    /// All definitions, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.definitions.values()
    }
}

/// The definition files of a directory, sorted, so that an error does not depend on the file system's order.
fn files(dir: &Path) -> Result<Vec<PathBuf>, DefinitionError> {
    let failed = |source| DefinitionError::Directory { path: dir.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str) -> &'static str {
        BUILT_IN.iter().find(|(n, _)| *n == name).unwrap().1
    }

    #[test]
    fn every_built_in_definition_is_valid_and_named_like_its_file() {
        let catalog = Catalog::load(None).unwrap();
        for (name, _) in BUILT_IN {
            assert_eq!(catalog.find(name).unwrap().name, *name);
        }
        assert_eq!(catalog.iter().count(), BUILT_IN.len());
    }

    #[test]
    fn an_unknown_name_is_told_the_known_ones() {
        let error = Catalog::load(None).unwrap().find("sdm630").unwrap_err().to_string();
        assert!(error.starts_with("there is no device definition \"sdm630\"; there are "), "{error}");
        assert!(error.contains("eastron-sdm630"), "{error}");
    }

    #[test]
    fn the_users_files_replace_and_extend() {
        let dir = tempfile::tempdir().unwrap();
        let own = text("eastron-sdm630").replace("max = 300.0 }", "max = 290.0 }");
        fs::write(dir.path().join("a.toml"), &own).unwrap();
        fs::write(dir.path().join("b.toml"), own.replace("\"eastron-sdm630\"", "\"my-meter\"")).unwrap();
        fs::write(dir.path().join("notes.txt"), "not a definition").unwrap();
        let catalog = Catalog::load(Some(dir.path())).unwrap();
        let window =
            |name: &str| catalog.find(name).unwrap().window(crate::device::Kind::Voltage).unwrap().max;
        assert!((window("eastron-sdm630") - 290.0).abs() < f64::EPSILON);
        assert!((window("my-meter") - 290.0).abs() < f64::EPSILON);
        assert_eq!(catalog.iter().count(), BUILT_IN.len() + 1);

        fs::write(dir.path().join("c.toml"), &own).unwrap();
        let error = Catalog::load(Some(dir.path())).unwrap_err().to_string();
        assert!(error.contains("c.toml:") && error.contains("a.toml already"), "{error}");
    }

    #[test]
    fn a_wrong_file_or_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.toml"), "name = \"x\"\nabout = 3\n").unwrap();
        let error = Catalog::load(Some(dir.path())).unwrap_err().to_string();
        assert!(error.contains("a.toml:2: about: "), "{error}");
        let error = Catalog::load(Some(&dir.path().join("gone"))).unwrap_err().to_string();
        assert!(error.contains("gone: the directory of device definitions cannot be read"), "{error}");
    }
}
