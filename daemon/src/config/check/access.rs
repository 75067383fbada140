//! Who may call: `[api]` and `[[operator]]`.

use std::collections::HashSet;

use super::{
    super::{
        Api, Backend, KnownCertificate, Lan, Mark, Mode, Operator, OperatorPlace, OperatorTrust, Role,
        Uplink, raw,
    },
    Check, Checked,
};
use crate::identity;

const FINGERPRINT: &str = "is not a SHA-256 fingerprint; write 64 hexadecimal digits, colons allowed";

/// What stands for a caller in limits, in the journal and in file names.
fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=64).contains(&text.len()) && text.chars().all(fits)
}

/// What the issuer of an unnamed certificate looks like: a name must not pass for one.
fn is_fingerprint_prefix(text: &str) -> bool {
    text.len() == 16 && text.chars().all(|c| c.is_ascii_hexdigit())
}

impl Check<'_> {
    pub(super) fn api(&self, raw: raw::Api) -> Checked<Api> {
        let at_home = |path: std::path::PathBuf| self.source.directory().join(path);
        Ok(Api {
            socket: at_home(raw.socket.unwrap_or_else(|| "/run/ladewart/ladewartd.sock".into())),
            users: raw.user.into_iter().map(|u| (u.uid, u.role)).collect(),
            certificates: self.certificates(raw.certificate)?,
            lan: raw.lan.map(|lan| self.lan(&lan)).transpose()?,
        })
    }

    fn lan(&self, raw: &raw::Lan) -> Checked<Lan> {
        Ok(Lan {
            listen: raw.listen,
            certificate: self.file("api.lan.certificate", &raw.certificate)?,
            key: self.file("api.lan.key", &raw.key)?,
            ca: self.file("api.lan.ca", &raw.ca)?,
        })
    }

    fn certificates(&self, raw: Vec<raw::Certificate>) -> Checked<Vec<KnownCertificate>> {
        let mut known: Vec<KnownCertificate> = Vec::with_capacity(raw.len());
        for (i, c) in raw.into_iter().enumerate() {
            let at = |name: &str| format!("api.certificate[{i}].{name}");
            let by = match (c.fingerprint, c.uri) {
                (Some(text), None) => Mark::Fingerprint(self.fingerprint(&at("fingerprint"), &text)?),
                (None, Some(uri)) => {
                    if !uri.contains(':') || uri.len() > 255 || !uri.chars().all(|c| c.is_ascii_graphic()) {
                        return self.fail(
                            &at("uri"),
                            format!("{uri:?} is not a URI; write it like \"urn:example:grid\""),
                        );
                    }
                    Mark::Uri(uri)
                }
                _ => {
                    return self.fail(
                        &format!("api.certificate[{i}]"),
                        "give either fingerprint = \"…\" or uri = \"urn:…\"",
                    );
                }
            };
            if known.iter().any(|other| other.by == by) {
                return self.fail(&at("role"), "this certificate has a role already; keep one of the two");
            }
            let name = match (c.name, &by) {
                (Some(name), _) if !is_name(&name) => {
                    return self.fail(
                        &at("name"),
                        format!("{name:?} is no name; use 1 to 64 of the letters a-z, A-Z, 0-9, \".\", \"_\", \"-\""),
                    );
                }
                (Some(name), _) if is_fingerprint_prefix(&name) => {
                    return self
                        .fail(&at("name"), "looks like a fingerprint; choose a name that cannot be one");
                }
                (Some(name), _) => name,
                (None, Mark::Fingerprint(print)) => identity::hex(&print[..8]),
                (None, Mark::Uri(uri)) => uri.clone(),
            };
            if let Some(other) = known.iter().find(|other| other.name == name && other.role != c.role) {
                return self.fail(
                    &at("role"),
                    format!("\"{name}\" is {} already; one name has one role", other.role.name()),
                );
            }
            known.push(KnownCertificate { by, name, role: c.role });
        }
        Ok(known)
    }

    pub(super) fn operators(
        &self,
        raw: Vec<raw::Operator>,
        known: &[KnownCertificate],
        uplink: Option<&Uplink>,
        backend: Option<&Backend>,
    ) -> Checked<Vec<Operator>> {
        let mut names = HashSet::new();
        let mut operators: Vec<Operator> = Vec::with_capacity(raw.len());
        for (i, o) in raw.into_iter().enumerate() {
            let at = |name: &str| format!("operator[{i}].{name}");
            let Some(uplink) = uplink else {
                return self.fail(
                    &format!("operator[{i}]"),
                    "needs a table [uplink]; without a gateway write mode = \"direct\"",
                );
            };
            if !is_name(&o.name) {
                return self.fail(
                    &at("name"),
                    format!(
                        "{:?} is no name; use 1 to 64 of the letters a-z, A-Z, 0-9, \".\", \"_\", \"-\"",
                        o.name
                    ),
                );
            }
            if !names.insert(o.name.clone()) {
                return self.fail(&at("name"), format!("\"{}\" names another operator already", o.name));
            }
            let place = self.place(i, &o, uplink, backend)?;
            if let Some(other) = operators.iter().find(|other| other.place == place) {
                let field = if matches!(place, OperatorPlace::Coming { .. }) { "target" } else { "address" };
                return self.fail(&at(field), format!("is that of operator \"{}\" already", other.name));
            }
            let trust = match (o.pin, o.ca) {
                (Some(_), None) if matches!(place, OperatorPlace::Coming { .. }) => {
                    return self.fail(
                        &at("pin"),
                        "cannot be used where the operator connects to us; give ca = \"operator-ca.pem\"",
                    );
                }
                (Some(pin), None) => {
                    if o.server_name.is_some() {
                        return self.fail(&at("server_name"), "has no meaning with a pin; remove it");
                    }
                    OperatorTrust::Pin(self.fingerprint(&at("pin"), &pin)?)
                }
                (None, Some(ca)) => OperatorTrust::Ca {
                    file: self.file(&at("ca"), &ca)?,
                    name: match (&place, o.server_name) {
                        (OperatorPlace::Coming { .. }, Some(_)) => {
                            return self.fail(
                                &at("server_name"),
                                "has no meaning where the operator connects to us; remove it",
                            );
                        }
                        (OperatorPlace::Coming { .. }, None) => String::new(),
                        (OperatorPlace::Dialed { host, .. }, name) => name.unwrap_or_else(|| host.clone()),
                    },
                },
                _ => {
                    return self.fail(
                        &format!("operator[{i}]"),
                        "give either pin = \"…\" or ca = \"operator-ca.pem\"",
                    );
                }
            };
            self.has_a_role(i, &o.roles, &trust, known)?;
            operators.push(Operator {
                name: o.name,
                place,
                trust,
                certificate: self.file(&at("certificate"), &o.certificate)?,
                key: self.file(&at("key"), &o.key)?,
                roles: o.roles,
            });
        }
        Ok(operators)
    }

    /// Where an operator is met: dialed, or awaited where the gateway connects to us.
    fn place(
        &self,
        i: usize,
        operator: &raw::Operator,
        uplink: &Uplink,
        backend: Option<&Backend>,
    ) -> Checked<OperatorPlace> {
        let at = |name: &str| format!("operator[{i}].{name}");
        if !matches!(uplink.mode, Mode::Listen(_)) {
            if operator.target.is_some() {
                let problem =
                    "has a meaning with the uplink's mode \"listen\" alone; give address = \"host:port\"";
                return self.fail(&at("target"), problem);
            }
            let address =
                self.required(&at("address"), operator.address.clone(), "\"operator.example:443\"")?;
            let (host, port) = self.host_port(&at("address"), &address)?;
            return Ok(OperatorPlace::Dialed { host, port });
        }
        if operator.address.is_some() {
            let problem = "has no meaning with the uplink's mode \"listen\", where the gateway connects to us; give \
                           target = \"name\" of an [[uplink.target]]";
            return self.fail(&at("address"), problem);
        }
        let target =
            self.required(&at("target"), operator.target.clone(), "the name of an [[uplink.target]]")?;
        let there: Vec<_> = uplink.targets.iter().map(|target| target.name.as_str()).collect();
        if !there.contains(&target.as_str()) {
            let there = there.join(", ");
            return self.fail(&at("target"), format!("there is no target \"{target}\"; there are {there}"));
        }
        let backends = backend.map(|backend| backend.target.as_deref().unwrap_or(there[0]));
        if backends == Some(target.as_str()) {
            return self.fail(
                &at("target"),
                format!(
                    "\"{target}\" is the backend's; add another [[uplink.target]] with a port of its own"
                ),
            );
        }
        Ok(OperatorPlace::Coming { target })
    }

    /// Somebody at this operator can do something: nobody should find out by a refusal.
    fn has_a_role(
        &self,
        i: usize,
        roles: &[Role],
        trust: &OperatorTrust,
        known: &[KnownCertificate],
    ) -> Checked<()> {
        let at = |name: &str| format!("operator[{i}].{name}");
        if roles.is_empty() {
            return self.fail(&at("roles"), "is empty; write for example roles = [\"grid\"]");
        }
        let fits = |c: &&KnownCertificate| match (&c.by, trust) {
            (Mark::Fingerprint(print), OperatorTrust::Pin(pin)) => print == pin,
            _ => true,
        };
        let mut fitting = known.iter().filter(fits).peekable();
        if fitting.peek().is_none() {
            let field = if matches!(trust, OperatorTrust::Pin(_)) { "pin" } else { "roles" };
            return self.fail(
                &at(field),
                "no [[api.certificate]] gives this operator a role; add one with its fingerprint or uri",
            );
        }
        if !fitting.any(|c| roles.contains(&c.role)) {
            return self.fail(
                &at("roles"),
                "no [[api.certificate]] that could be this operator's has one of these roles",
            );
        }
        Ok(())
    }

    fn fingerprint(&self, field: &str, text: &str) -> Checked<[u8; 32]> {
        let hex: String = text.chars().filter(|c| *c != ':').collect();
        let mut bytes = [0_u8; 32];
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return self.fail(field, FINGERPRINT);
        }
        for (i, byte) in bytes.iter_mut().enumerate() {
            match u8::from_str_radix(&hex[2 * i..2 * i + 2], 16) {
                Ok(value) => *byte = value,
                Err(_) => return self.fail(field, FINGERPRINT),
            }
        }
        Ok(bytes)
    }
}
