//! RAUC's D-Bus interface (`de.pengutronix.rauc.Installer`), as far as it is used here.

use std::collections::HashMap;

use zbus::{OwnedVariant, Variant};

use super::UpdateError;

#[zbus::proxy(
    interface = "de.pengutronix.rauc.Installer",
    default_service = "de.pengutronix.rauc",
    default_path = "/"
)]
pub(super) trait Installer {
    fn install_bundle(&self, source: &str, args: HashMap<&str, Variant<'_>>) -> zbus::Result<()>;
    fn info(&self, bundle: &str) -> zbus::Result<(String, String)>;
    fn mark(&self, state: &str, slot_identifier: &str) -> zbus::Result<(String, String)>;
    #[zbus(name = "GetSlotStatus")]
    fn slots(&self) -> zbus::Result<Vec<(String, HashMap<String, OwnedVariant>)>>;
    #[zbus(name = "GetPrimary")]
    fn primary(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn operation(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn last_error(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn progress(&self) -> zbus::Result<(i32, String, i32)>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn compatible(&self) -> zbus::Result<String>;
    #[zbus(signal)]
    fn completed(&self, result: i32) -> zbus::Result<()>;
}

/// A connection to RAUC on the system bus (`DBUS_SYSTEM_BUS_ADDRESS`, or the usual place). The bus starts RAUC.
pub(super) async fn connect() -> Result<InstallerProxy<'static>, UpdateError> {
    let connection = zbus::Connection::system().await.map_err(absent)?;
    InstallerProxy::new(&connection).await.map_err(absent)
}

/// RAUC is not there.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn absent(error: zbus::Error) -> UpdateError {
    UpdateError::Absent(words(&error))
}

/// RAUC does something else just now, an installation for instance.
pub(super) fn busy(error: &zbus::Error) -> bool {
    words(error).contains("already processing a different method")
}

/// RAUC says no.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn refused(error: zbus::Error) -> UpdateError {
    match &error {
        zbus::Error::MethodError(name, ..) if !name.starts_with("org.freedesktop.DBus.Error") => {
            UpdateError::Refused(words(&error))
        }
        // How RAUC itself reports: G-IO errors and plain failures.
        zbus::Error::MethodError(name, ..) if name.as_str() == "org.freedesktop.DBus.Error.Failed" => {
            UpdateError::Refused(words(&error))
        }
        _ => UpdateError::Absent(words(&error)),
    }
}

/// The sentence without the bus's wrapping.
fn words(error: &zbus::Error) -> String {
    match error {
        zbus::Error::MethodError(_, Some(text), _) => text.clone(),
        other => other.to_string(),
    }
}

/// A text of a slot's status.
pub(super) fn text(status: &HashMap<String, OwnedVariant>, key: &str) -> String {
    status.get(key).and_then(|value| <&str>::try_from(value).ok()).unwrap_or_default().to_owned()
}
