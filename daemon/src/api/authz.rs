//! Who may call what: one table, enforced in one place before any service.
//!
//! In: the socket peer's user id and the call's path. Out: the call with its [`Caller`], or a refusal.
//! Invariant: fail closed. An unknown user gets nothing, and what is not in the table is not there for anybody.

use std::{
    collections::HashMap,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::Either;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::incoming::Peer;
use crate::config::Role::{self, Admin, Grid, Installer, Supplier, Viewer};

const EVERY: &[Role] = &[Viewer, Installer, Grid, Supplier, Admin];
/// The evidence names people and their commands: it is for those who must show or judge it.
const EVIDENCE: &[Role] = &[Installer, Grid, Admin];
/// Who may reduce the site. A limit carries its issuer and role, and each ends only its own; `admin` ends all.
const LIMITING: &[Role] = &[Installer, Grid, Admin];

/// Who may put the site behind its gateway.
const COMMISSIONING: &[Role] = &[Installer, Admin];

/// Method → roles, for every method that is served.
pub(super) const TABLE: &[(&str, &[Role])] = &[
    ("/ladewart.v1.SiteService/GetSite", EVERY),
    ("/ladewart.v1.SiteService/WatchSite", EVERY),
    ("/ladewart.v1.GridService/SetLimit", LIMITING),
    ("/ladewart.v1.GridService/ClearLimit", LIMITING),
    ("/ladewart.v1.GridService/ListLimits", EVERY),
    ("/ladewart.v1.GridService/WatchLimits", EVERY),
    ("/ladewart.v1.EvseService/ListEvses", EVERY),
    ("/ladewart.v1.MeterService/ListMeters", EVERY),
    ("/ladewart.v1.UplinkService/GetUplinkStatus", EVERY),
    ("/ladewart.v1.UplinkService/TestUplink", COMMISSIONING),
    ("/ladewart.v1.UplinkService/TrustGateway", COMMISSIONING),
    ("/ladewart.v1.IdentityService/ListIdentities", COMMISSIONING),
    ("/ladewart.v1.IdentityService/CreateKey", COMMISSIONING),
    ("/ladewart.v1.IdentityService/CreateCertificateRequest", COMMISSIONING),
    ("/ladewart.v1.IdentityService/ImportCertificate", COMMISSIONING),
    ("/ladewart.v1.IdentityService/ImportIdentity", COMMISSIONING),
    ("/ladewart.v1.IdentityService/SelectIdentity", COMMISSIONING),
    ("/ladewart.v1.IdentityService/DeleteIdentity", COMMISSIONING),
    ("/ladewart.v1.JournalService/ExportJournal", EVIDENCE),
    ("/ladewart.v1.JournalService/VerifyJournal", EVIDENCE),
    ("/ladewart.v1.SystemService/GetVersion", EVERY),
    ("/grpc.health.v1.Health/Check", EVERY),
    ("/grpc.health.v1.Health/Watch", EVERY),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", EVERY),
];

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// As it appears in limits and in the journal: `"uid:1000"`.
    pub issuer: String,
    /// What it may do.
    pub role: Role,
}

impl Caller {
    /// The caller of a request that passed the gate.
    pub(super) fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        // Only a service that is served without the gate could get here.
        request.extensions().get::<Self>().cloned().ok_or_else(|| Status::internal("the caller is not known"))
    }
}

/// The table in front of the services.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    users: Arc<HashMap<u32, Role>>,
}

impl Gate {
    /// Users by the configuration. Root and the daemon's own user are `admin` unless it says otherwise.
    pub(super) fn new(users: &[(u32, Role)]) -> Self {
        let own = nix::unistd::geteuid().as_raw();
        let mut map = HashMap::from([(0, Admin), (own, Admin)]);
        map.extend(users.iter().copied());
        Self { users: Arc::new(map) }
    }

    fn judge(&self, peer: Option<&Peer>, path: &str) -> Result<Caller, Status> {
        let Some(uid) = peer.and_then(|peer| peer.uid) else {
            return Err(Status::permission_denied("the system does not say who calls"));
        };
        let Some(&role) = self.users.get(&uid) else {
            return Err(Status::permission_denied(format!(
                "user {uid} has no role here; an administrator gives one in the configuration under api.user"
            )));
        };
        let Some((_, roles)) = TABLE.iter().find(|(method, _)| *method == path) else {
            return Err(Status::unimplemented(format!("{path} is not part of this interface")));
        };
        if !roles.contains(&role) {
            let may: Vec<_> = roles.iter().map(|role| role.name()).collect();
            return Err(Status::permission_denied(format!(
                "{path} is not for user {uid} with the role {}; it takes {}",
                role.name(),
                may.join(" or ")
            )));
        }
        Ok(Caller { issuer: format!("uid:{uid}"), role })
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { gate: self.clone(), inner }
    }
}

/// Services behind the [`Gate`].
#[derive(Debug, Clone)]
pub(super) struct Gated<S> {
    gate: Gate,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Gated<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Self::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>();
        match self.gate.judge(peer, request.uri().path()) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                Either::Left(self.inner.call(request))
            }
            Err(status) => {
                tracing::info!(reason = status.message(), "a call was refused");
                Either::Right(ready(Ok(status.into_http())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fmt::Write};

    use prost::Message;
    use prost_types::FileDescriptorSet;
    use tonic::Code;

    use super::*;

    /// Every method of every service that is served, from the descriptors.
    fn served() -> BTreeSet<String> {
        let sets = [
            ladewart_proto::DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        ];
        let mut methods = BTreeSet::new();
        for set in sets {
            for file in FileDescriptorSet::decode(set).unwrap().file {
                for service in &file.service {
                    for method in &service.method {
                        methods.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                    }
                }
            }
        }
        methods
    }

    #[test]
    fn the_table_has_one_row_for_every_method_and_no_other() {
        let rows: BTreeSet<_> = TABLE.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(rows.len(), TABLE.len(), "no method twice");
        assert_eq!(rows, served());
    }

    #[test]
    fn every_row_admits_admin_and_only_the_named_roles() {
        let users: Vec<_> = (1000..).zip(EVERY.iter().copied()).collect();
        let gate = Gate::new(&users);
        let mut table = String::new();
        for (path, roles) in TABLE {
            assert!(roles.contains(&Admin), "{path}");
            for (uid, role) in &users {
                let judged = gate.judge(Some(&Peer { uid: Some(*uid) }), path);
                match judged {
                    Ok(caller) => {
                        assert!(roles.contains(role), "{path} {role:?}");
                        assert_eq!(caller, Caller { issuer: format!("uid:{uid}"), role: *role });
                    }
                    Err(status) => {
                        assert!(!roles.contains(role), "{path} {role:?}");
                        assert_eq!(status.code(), Code::PermissionDenied);
                        assert!(status.message().contains(role.name()), "{}", status.message());
                    }
                }
            }
            let names: Vec<_> = roles.iter().map(|r| r.name()).collect();
            writeln!(table, "{path}: {}", names.join(" ")).unwrap();
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn strangers_and_unknown_paths_are_refused() {
        let gate = Gate::new(&[(1000, Viewer)]);
        let stranger = gate.judge(Some(&Peer { uid: Some(4711) }), TABLE[0].0).unwrap_err();
        assert_eq!(stranger.code(), Code::PermissionDenied);
        assert!(stranger.message().contains("4711"), "{}", stranger.message());
        for nobody in [None, Some(&Peer { uid: None })] {
            assert_eq!(gate.judge(nobody, TABLE[0].0).unwrap_err().code(), Code::PermissionDenied);
        }
        for path in ["/ladewart.v1.SiteService/Shutdown", "/ladewart.v1.siteservice/GetSite", "/", "", "*"] {
            let refused = gate.judge(Some(&Peer { uid: Some(0) }), path).unwrap_err();
            assert_eq!(refused.code(), Code::Unimplemented, "{path}");
        }
    }

    #[test]
    fn root_and_the_own_user_are_admin_unless_the_configuration_says_otherwise() {
        let own = nix::unistd::geteuid().as_raw();
        let judge = |gate: &Gate, uid| gate.judge(Some(&Peer { uid: Some(uid) }), TABLE[0].0).unwrap().role;
        let gate = Gate::new(&[]);
        assert_eq!((judge(&gate, 0), judge(&gate, own)), (Admin, Admin));
        assert_eq!(judge(&Gate::new(&[(own, Viewer)]), own), Viewer);
    }
}
