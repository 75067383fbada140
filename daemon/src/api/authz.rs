//! Who may call what: one table, enforced in one place before any service.
//!
//! In: who is at the other end, and the call's path. Out: the call with its [`Caller`], or a refusal.
//! Invariant: fail closed. An unknown caller gets nothing, and what is not in the table is not there for anybody.

use std::{
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::Either;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::{
    caller::{Caller, Directory, Peer},
    refusals::Refusals,
};
use crate::{
    clock::Clock,
    config::{
        self,
        Role::{self, Admin, Grid, Installer, Supplier, Viewer},
    },
    time::Wall,
};

const EVERY: &[Role] = &[Viewer, Installer, Grid, Supplier, Admin];
/// The evidence names people and their commands: it is for those who must show or judge it.
const EVIDENCE: &[Role] = &[Installer, Grid, Admin];
/// Who may reduce the site. A limit carries its issuer and role, and each ends only its own; `admin` ends all.
const LIMITING: &[Role] = &[Installer, Grid, Admin];

/// Who may put the site behind its gateway and keep its software.
const COMMISSIONING: &[Role] = &[Installer, Admin];

/// Who says what energy costs.
const SUPPLYING: &[Role] = &[Supplier, Admin];
/// Who may set variables at all; the configuration says of each who sets it.
const SETTING: &[Role] = &[Installer, Grid, Supplier, Admin];
/// Who may have an EVSE do something, and see who charged.
const CHARGING: &[Role] = &[Installer, Supplier, Admin];

/// Method → roles, for every method that is served.
pub(crate) const TABLE: &[(&str, &[Role])] = &[
    ("/ladewart.v1.SiteService/GetSite", EVERY),
    ("/ladewart.v1.SiteService/ExplainEvse", EVERY),
    ("/ladewart.v1.SiteService/WatchSite", EVERY),
    ("/ladewart.v1.GridService/SetLimit", LIMITING),
    ("/ladewart.v1.GridService/ClearLimit", LIMITING),
    ("/ladewart.v1.GridService/ListLimits", EVERY),
    ("/ladewart.v1.GridService/WatchLimits", EVERY),
    ("/ladewart.v1.GridService/Heartbeat", LIMITING),
    ("/ladewart.v1.GridService/SetFailsafe", LIMITING),
    ("/ladewart.v1.GridService/ListSources", EVERY),
    ("/ladewart.v1.GridService/GetMinimumPower", EVERY),
    ("/ladewart.v1.EvseService/ListEvses", EVERY),
    ("/ladewart.v1.EvseService/WatchEvses", EVERY),
    ("/ladewart.v1.EvseService/AuthorizeEvse", CHARGING),
    ("/ladewart.v1.EvseService/StartCharge", CHARGING),
    ("/ladewart.v1.EvseService/StopCharge", CHARGING),
    ("/ladewart.v1.EvseService/UnlockConnector", CHARGING),
    ("/ladewart.v1.EvseService/ResetEvse", CHARGING),
    ("/ladewart.v1.EvseService/SetAvailability", CHARGING),
    ("/ladewart.v1.TransactionService/ListTransactions", CHARGING),
    ("/ladewart.v1.TransactionService/ExportTransactions", CHARGING),
    ("/ladewart.v1.TransactionService/ListDeadLetters", CHARGING),
    ("/ladewart.v1.TransactionService/RetryDeadLetters", CHARGING),
    ("/ladewart.v1.TransactionService/DiscardDeadLetters", CHARGING),
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
    ("/ladewart.v1.UpdateService/GetUpdateStatus", EVERY),
    ("/ladewart.v1.UpdateService/InstallUpdate", COMMISSIONING),
    ("/ladewart.v1.UpdateService/ConfirmUpdate", COMMISSIONING),
    ("/ladewart.v1.UpdateService/RollbackUpdate", COMMISSIONING),
    ("/ladewart.v1.DeviceService/ScanBus", COMMISSIONING),
    ("/ladewart.v1.DeviceService/ReadDevice", COMMISSIONING),
    ("/ladewart.v1.DeviceService/TestSetpoint", COMMISSIONING),
    ("/ladewart.v1.DeviceService/CheckSite", COMMISSIONING),
    ("/ladewart.v1.DeviceService/ClearRelay", COMMISSIONING),
    ("/ladewart.v1.TariffService/AnnounceTariff", SUPPLYING),
    ("/ladewart.v1.TariffService/WithdrawTariff", SUPPLYING),
    ("/ladewart.v1.TariffService/ListTariffs", EVERY),
    ("/ladewart.v1.TariffService/ListRates", EVERY),
    ("/ladewart.v1.VariableService/SetVariable", SETTING),
    ("/ladewart.v1.VariableService/ClearVariable", SETTING),
    ("/ladewart.v1.VariableService/ListVariables", EVERY),
    ("/grpc.health.v1.Health/Check", EVERY),
    ("/grpc.health.v1.Health/Watch", EVERY),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", EVERY),
];

/// Whether a path is part of the interface.
pub(super) fn is_method(path: &str) -> bool {
    TABLE.iter().any(|(method, _)| *method == path)
}

/// The table, and who is who.
#[derive(Debug)]
pub(super) struct Access {
    directory: Directory,
}

impl Access {
    pub(super) fn new(config: &config::Api) -> Self {
        Self { directory: Directory::new(config) }
    }

    fn judge(&self, peer: Option<&Peer>, path: &str, now: Wall) -> Result<Caller, Status> {
        let Some(peer) = peer else {
            return Err(Status::permission_denied("the transport does not say who calls"));
        };
        let caller = self.directory.caller(peer, now).map_err(Status::permission_denied)?;
        let Some((_, roles)) = TABLE.iter().find(|(method, _)| *method == path) else {
            return Err(Status::unimplemented(format!("{path} is not part of this interface")));
        };
        if !roles.contains(&caller.role) {
            let may: Vec<_> = roles.iter().map(|role| role.name()).collect();
            let who = match peer {
                Peer::User(Some(uid)) => format!("user {uid}"),
                _ => caller.issuer,
            };
            return Err(Status::permission_denied(format!(
                "{path} is not for {who} with the role {}; it takes {}",
                caller.role.name(),
                may.join(" or ")
            )));
        }
        Ok(caller)
    }
}

/// The table in front of the services.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    access: Arc<Access>,
    refusals: Arc<Refusals>,
    clock: Clock,
}

impl Gate {
    pub(super) fn new(access: Access, refusals: Refusals, clock: Clock) -> Self {
        Self { access: Arc::new(access), refusals: Arc::new(refusals), clock }
    }

    pub(super) fn caller(&self, peer: &Peer) -> Result<Caller, String> {
        self.access.directory.caller(peer, self.clock.now().wall)
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
        let now = self.gate.clock.now();
        match self.gate.access.judge(peer, request.uri().path(), now.wall) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                Either::Left(self.inner.call(request))
            }
            Err(status) => {
                self.gate.refusals.refused(peer, request.uri().path(), status.message(), now);
                Either::Right(ready(Ok(status.into_http())))
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{collections::BTreeMap, collections::BTreeSet, fmt::Write};

    use prost::Message;
    use prost_types::FileDescriptorSet;
    use tonic::Code;

    use super::*;

    fn access(users: &[(u32, Role)]) -> Access {
        let config =
            config::Api { socket: "x".into(), users: users.to_vec(), certificates: vec![], lan: None };
        Access::new(&config)
    }

    /// Every method of every service that is served, from the descriptors, and whether it answers with a stream.
    pub(crate) fn served() -> BTreeMap<String, bool> {
        let sets = [
            ladewart_proto::DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        ];
        let mut methods = BTreeMap::new();
        for set in sets {
            for file in FileDescriptorSet::decode(set).unwrap().file {
                for service in &file.service {
                    for method in &service.method {
                        methods.insert(
                            format!("/{}.{}/{}", file.package(), service.name(), method.name()),
                            method.server_streaming(),
                        );
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
        assert_eq!(rows, served().into_keys().collect());
    }

    #[test]
    fn every_row_admits_admin_and_only_the_named_roles() {
        let users: Vec<_> = (1000..).zip(EVERY.iter().copied()).collect();
        let gate = access(&users);
        let mut table = String::new();
        for (path, roles) in TABLE {
            assert!(roles.contains(&Admin), "{path}");
            for (uid, role) in &users {
                let judged = gate.judge(Some(&Peer::User(Some(*uid))), path, Wall(0));
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
        let gate = access(&[(1000, Viewer)]);
        let stranger = gate.judge(Some(&Peer::User(Some(4711))), TABLE[0].0, Wall(0)).unwrap_err();
        assert_eq!(stranger.code(), Code::PermissionDenied);
        assert!(stranger.message().contains("4711"), "{}", stranger.message());
        for nobody in [None, Some(&Peer::User(None))] {
            assert_eq!(gate.judge(nobody, TABLE[0].0, Wall(0)).unwrap_err().code(), Code::PermissionDenied);
        }
        for path in ["/ladewart.v1.SiteService/Shutdown", "/ladewart.v1.siteservice/GetSite", "/", "", "*"] {
            let refused = gate.judge(Some(&Peer::User(Some(0))), path, Wall(0)).unwrap_err();
            assert_eq!(refused.code(), Code::Unimplemented, "{path}");
        }
    }

    #[test]
    fn root_and_the_own_user_are_admin_unless_the_configuration_says_otherwise() {
        let own = nix::unistd::geteuid().as_raw();
        let judge =
            |gate: &Access, uid| gate.judge(Some(&Peer::User(Some(uid))), TABLE[0].0, Wall(0)).unwrap().role;
        let gate = access(&[]);
        assert_eq!((judge(&gate, 0), judge(&gate, own)), (Admin, Admin));
        assert_eq!(judge(&access(&[(own, Viewer)]), own), Viewer);
    }
}
