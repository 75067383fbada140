//! Remote administration: the daemon dials an operator through the gateway, the operator runs `ladewartctl
//! reverse-listen`, and what works on the site works from there, to the same table of roles.

use std::{path::Path, process::Stdio};

use ladewart_lab::{
    clock::eventually,
    gateway::Route,
    log::Entry,
    operator,
    pki::{Authority, Identity},
    process::program,
    reverse::{ReverseListen, WanEnd},
    site::{Lab, Plan, SOON},
};
use serde_json::Value;
use tokio::process::Command;

const HOST: &str = "operator.example";
const PORT: u16 = 9443;

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

/// What an operator types, on the socket of an appliance.
async fn ctl(socket: &Path, words: &[&str]) -> anyhow::Result<Said> {
    let output = Command::new(program("ladewartctl")?)
        .arg("--socket")
        .arg(socket)
        .args(words)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) })
}

/// One operator: a program, the end of a WAN leg, a certificate.
struct Operator {
    directory: tempfile::TempDir,
    port: u16,
    identity: Identity,
    program: Option<ReverseListen>,
}

impl Operator {
    fn new(port: u16, operators: &Authority, sites: &Authority) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let identity = operators.issue(HOST)?;
        std::fs::write(directory.path().join("operator.pem"), &identity.certificate_pem)?;
        std::fs::write(directory.path().join("operator.key"), &identity.key_pem)?;
        std::fs::write(directory.path().join("appliances.pem"), sites.pem())?;
        Ok(Self { directory, port, identity, program: None })
    }

    /// What the site's configuration says of it.
    fn table(&self, name: &str, role: &str) -> String {
        format!(
            "[[api.certificate]]\nfingerprint = \"{}\"\nname = \"{name}\"\nrole = \"{role}\"\n\n\
             [[operator]]\nname = \"{name}\"\naddress = \"{HOST}:{}\"\nca = \"operators.pem\"\n\
             certificate = \"site.pem\"\nkey = \"site.key\"\nroles = [\"{role}\"]\n\n",
            self.identity.fingerprint(),
            self.port,
        )
    }

    async fn start(&mut self, lab: &Lab) -> anyhow::Result<WanEnd> {
        let program = ReverseListen::start(self.directory.path()).await?;
        let end =
            WanEnd::start(lab.keys.wan.acceptor(&lab.keys.wan.issue(HOST)?)?, program.address()).await?;
        let route = Route { address: end.address(), tls_name: Some(HOST.to_owned()) };
        lab.gateway.allow(&format!("{HOST}:{}", self.port), route);
        self.program = Some(program);
        Ok(end)
    }

    fn program(&self) -> &ReverseListen {
        self.program.as_ref().expect("it runs")
    }

    async fn ctl(&self, words: &[&str]) -> anyhow::Result<Said> {
        ctl(&ReverseListen::socket(self.directory.path(), "site-4711"), words).await
    }
}

fn keys(lab: &Lab, operators: &Authority, sites: &Authority) -> anyhow::Result<()> {
    let site = sites.issue("site-4711")?;
    lab.write("operators.pem", &operators.pem())?;
    lab.write("site.pem", &site.certificate_pem)?;
    lab.write("site.key", &site.key_pem)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_administers_through_the_gateway_what_it_may() -> anyhow::Result<()> {
    let (operators, sites) = (Authority::new("operators")?, Authority::new("sites")?);
    let mut all = Vec::new();
    let mut extra = String::new();
    for (port, role) in (PORT..).zip(["viewer", "installer", "grid", "supplier", "admin"]) {
        let operator = Operator::new(port, &operators, &sites)?;
        extra += &operator.table(&format!("the-{role}"), role);
        all.push((role, operator));
    }
    let mut lab = Lab::prepare(Plan { extra, ..Plan::default() }).await?;
    keys(&lab, &operators, &sites)?;
    let mut ends = Vec::new();
    for (_, operator) in &mut all {
        ends.push(operator.start(&lab).await?);
    }
    lab.start_daemon().await?;
    lab.ready().await?;
    for (role, operator) in &all {
        let seen = operator.program().told("connected", 1).await?;
        assert_eq!(
            (seen["name"].as_str(), seen["subject"].as_str()),
            (Some("site-4711"), Some("CN=site-4711"))
        );
        let status = operator.ctl(&["status"]).await?;
        assert_eq!(status.code, Some(0), "{role}: {}", status.err);
        assert!(status.out.contains("carport"), "{role}: {}", status.out);

        let limits = matches!(*role, "installer" | "grid" | "admin");
        let set = operator.ctl(&["limit", "set", "4200 W", "--id", role, "--reason", "from afar"]).await?;
        assert_eq!(set.code, Some(if limits { 0 } else { 4 }), "{role}: {}{}", set.out, set.err);
        if limits {
            lab.observer.limit(Some(4_200));
            let list: Value =
                serde_json::from_str(&operator.ctl(&["limit", "list", "-o", "json"]).await?.out)?;
            let mine = list["limits"].as_array().and_then(|l| l.iter().find(|l| l["id"] == *role));
            let mine = mine.unwrap_or_else(|| panic!("{role} sees its limit in {list}"));
            assert_eq!(mine["issuer"], format!("cert:the-{role}"));
            assert_eq!(mine["role"], *role);
            // Nobody but an admin ends what another one has set.
            let theirs = all[0].1.ctl(&["limit", "clear", role]).await?;
            assert_eq!(theirs.code, Some(4), "{}", theirs.err);
            lab.observer.limit(None);
            assert_eq!(operator.ctl(&["limit", "clear", role]).await?.code, Some(0));
        } else {
            assert!(set.err.contains(&format!("the role {role}")), "{}", set.err);
        }
        let evidence = matches!(*role, "installer" | "grid" | "admin");
        let export = operator.ctl(&["journal", "export", "-o", "json"]).await?;
        assert_eq!(export.code, Some(if evidence { 0 } else { 4 }), "{role}: {}", export.err);
        let version = operator.ctl(&["version"]).await?;
        assert_eq!(version.code, Some(0), "{role}: {}", version.err);
    }
    let journal = lab.operator.journal().await?;
    let count = |kind: &str| journal.iter().filter(|e| e.kind == kind).count();
    assert_eq!(count("remote.connected"), 5);
    assert_eq!(count("call.refused"), 2, "once a minute for each of the two who were refused");
    lab.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_is_shown_and_the_appliance_comes_back() -> anyhow::Result<()> {
    let (operators, sites) = (Authority::new("operators")?, Authority::new("sites")?);
    let mut operator = Operator::new(PORT, &operators, &sites)?;
    let plan = Plan { extra: operator.table("north", "grid"), ..Plan::default() };
    let mut lab = Lab::prepare(plan).await?;
    keys(&lab, &operators, &sites)?;
    let _end = operator.start(&lab).await?;
    lab.start_daemon().await?;
    lab.ready().await?;
    operator.program().told("connected", 1).await?;
    assert_eq!(operator.ctl(&["limit", "set", "6 kW", "--id", "dso"]).await?.code, Some(0));
    lab.observer.limit(Some(6_000));
    lab.gateway.cut();
    operator.program().told("gone", 1).await?;
    assert_eq!(operator.ctl(&["status"]).await?.code, Some(3), "nobody is there");
    lab.gateway.restore();
    operator.program().told("connected", 2).await?;
    let list = operator.ctl(&["limit", "list"]).await?;
    assert!(list.code == Some(0) && list.out.contains("cert:north"), "{}{}", list.out, list.err);
    lab.observer.limit(None);
    assert_eq!(operator.ctl(&["limit", "clear", "dso"]).await?.code, Some(0), "it is still its own");

    // The operator's program goes and comes: the site dials again.
    let log = operator.program().log().clone();
    let program = operator.program.take().expect("it runs");
    let socket = ReverseListen::socket(operator.directory.path(), "site-4711");
    assert!(socket.exists());
    assert_eq!(program.stop().await?, Some(0), "{:?}", log.entries());
    assert!(!socket.exists(), "it leaves no socket");
    let _end = operator.start(&lab).await?;
    operator.program().told("connected", 1).await?;
    assert_eq!(operator.ctl(&["status"]).await?.code, Some(0));
    lab.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_no_further_than_their_certificate() -> anyhow::Result<()> {
    let (operators, sites) = (Authority::new("operators")?, Authority::new("sites")?);
    // The first shows a certificate of another CA to the site; the second does not know the site's CA; the third is
    // known by nobody; the fourth is right.
    let wrong_ca = Operator::new(PORT, &Authority::new("others")?, &sites)?;
    let suspicious = Operator::new(PORT + 1, &operators, &Authority::new("others")?)?;
    let unknown = Operator::new(PORT + 2, &operators, &sites)?;
    let right = Operator::new(PORT + 3, &operators, &sites)?;
    let stand_in = operators.issue(HOST)?.fingerprint();
    let extra = wrong_ca.table("wrong-ca", "admin")
        + &suspicious.table("suspicious", "admin")
        + &unknown.table("unknown", "admin").replace(&unknown.identity.fingerprint(), &stand_in)
        + &right.table("right", "admin");
    let mut lab = Lab::prepare(Plan { extra, ..Plan::default() }).await?;
    keys(&lab, &operators, &sites)?;
    let mut all = [wrong_ca, suspicious, unknown, right];
    let mut ends = Vec::new();
    for operator in &mut all {
        ends.push(operator.start(&lab).await?);
    }
    lab.start_daemon().await?;
    lab.ready().await?;
    let [wrong_ca, suspicious, unknown, right] = &all;
    right.program().told("connected", 1).await?;
    assert_eq!(right.ctl(&["status"]).await?.code, Some(0));
    let refused = wrong_ca.program().told("refused", 1).await?;
    assert!(refused["reason"].as_str().is_some_and(|r| r.contains("UnknownCA")), "{refused}");
    let refused = suspicious.program().told("refused", 1).await?;
    assert!(refused["reason"].as_str().is_some_and(|r| r.contains("UnknownIssuer")), "{refused}");
    unknown.program().told("connected", 1).await?;
    let status = unknown.ctl(&["status"]).await?;
    assert_eq!(status.code, Some(4), "{}{}", status.out, status.err);
    assert!(status.err.contains(&unknown.identity.fingerprint()), "{}", status.err);
    for reason in ["unknown_ca", "not issued by a trusted CA"] {
        let line = |e: &Entry<String>| e.what.contains(reason).then_some(());
        eventually(SOON, &format!("the daemon says {reason}"), || lab.log.find(line)).await?;
    }
    assert_eq!(wrong_ca.program().count("connected") + suspicious.program().count("connected"), 0);
    lab.finish().await?;
    Ok(())
}

/// A key made on the device, and what an authority answers to its request.
async fn issue(lab: &Lab, name: &str) -> anyhow::Result<()> {
    let admin = lab.socket();
    let made = ctl(&admin, &["identity", "create-key", name]).await?;
    assert_eq!(made.code, Some(0), "{}", made.err);
    renew(lab, name).await
}

/// One more certificate for the same key.
async fn renew(lab: &Lab, name: &str) -> anyhow::Result<()> {
    let admin = lab.socket();
    let request = ctl(&admin, &["identity", "request", name]).await?;
    assert_eq!(request.code, Some(0), "{}", request.err);
    let chain = lab.write(&format!("{name}.answer.pem"), &lab.keys.han.answer(&request.out)?)?;
    let chain = chain.to_str().expect("a path of ours");
    let imported = ctl(&admin, &["identity", "import", name, chain]).await?;
    assert_eq!(imported.code, Some(0), "{}", imported.err);
    Ok(())
}

/// Limits that an operator sets through the gateway while certificates come and go.
const ACTIONS: i64 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn no_control_action_is_lost_while_keys_and_certificates_change() -> anyhow::Result<()> {
    let (operators, sites) = (Authority::new("operators")?, Authority::new("sites")?);
    let mut operator = Operator::new(PORT, &operators, &sites)?;
    let plan = Plan { extra: operator.table("north", "grid"), ..Plan::default() };
    let mut lab = Lab::prepare(plan).await?;
    keys(&lab, &operators, &sites)?;
    // The gateway is on its way from a pinned certificate to one of a PKI: both hold.
    let next = Authority::new("SM-PKI")?;
    lab.write("next.pem", &next.pem())?;
    let pin = lab.keys.gateway.fingerprint();
    let both = format!("trust = {{ pin = \"{pin}\", ca = \"next.pem\", name = \"smgw.local\" }}");
    let text = lab
        .configuration()
        .replace("certificate = \"cls.pem\"\nkey = \"cls.key\"\ntrust", "identity = \"cls-0\"\ntrust")
        .replace(&format!("trust = {{ pin = \"{pin}\" }}"), &both);
    lab.write("ladewartd.toml", &text)?;
    let _end = operator.start(&lab).await?;
    lab.start_daemon().await?;
    issue(&lab, "cls-0").await?;
    lab.ready().await?;
    operator.program().told("connected", 1).await?;

    let socket = ReverseListen::socket(operator.directory.path(), "site-4711");
    let far = operator::Operator::new(&socket)?;
    let actions = async {
        for n in 0..ACTIONS {
            let limit = far.limit(&format!("dso-{n}"), 4_200 + 50 * n).await?;
            assert_eq!(limit.issuer, "cert:north");
            far.clear(&limit.id).await?;
        }
        anyhow::Ok(())
    };
    let changes = async {
        for n in 1..=4 {
            let name = format!("cls-{n}");
            issue(&lab, &name).await?;
            let selected = ctl(&lab.socket(), &["identity", "select", &name]).await?;
            assert_eq!(selected.code, Some(0), "{}", selected.err);
            renew(&lab, &name).await?;
            lab.gateway.show(lab.keys.han.acceptor(&next.issue("smgw.local")?)?);
        }
        anyhow::Ok(())
    };
    let (actions, changes) = tokio::join!(actions, changes);
    actions?;
    changes?;
    assert_eq!(operator.program().count("gone"), 0, "the connection stood all along");

    // What begins now shows the last one, and takes the gateway by its new issuer.
    lab.gateway.cut();
    operator.program().told("gone", 1).await?;
    lab.gateway.restore();
    operator.program().told("connected", 2).await?;
    lab.ready().await?;
    let uplink = lab.operator.uplink().await?;
    assert_eq!(uplink.own_certificate.map(|own| own.subject).as_deref(), Some("CN=cls-4"));
    assert_ne!(uplink.gateway_certificate.map(|gateway| gateway.fingerprint), Some(pin));
    let far = operator::Operator::new(&socket)?;
    let limit = far.limit("after", 5_000).await?;
    far.clear(&limit.id).await?;

    let journal = lab.operator.journal().await?;
    let count = |kind: &str| journal.iter().filter(|entry| entry.kind == kind).count();
    let acted = usize::try_from(ACTIONS)? + 1;
    assert_eq!((count("limit.received"), count("limit.cleared")), (acted, acted));
    assert_eq!((count("identity.key_created"), count("identity.certificate_imported")), (5, 9));
    assert_eq!(count("identity.selected"), 4);
    lab.finish().await?;
    Ok(())
}
