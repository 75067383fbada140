//! Every method × every role × every way to be right or wrong, with the exact code: over the socket, over the
//! site's network, over a connection that the site dialed and over one that the gateway opened. Printed, and written to `target/report/authz.json`.

use std::collections::BTreeMap;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tonic::{Code, Status, body::Body};
use tower::{Service, ServiceExt};

use super::*;
use crate::{
    api::authz::{TABLE, tests::served},
    tls::Fault,
};

type Bytes = <Body as http_body::Body>::Data;

/// One empty gRPC message: not compressed, no bytes.
struct EmptyMessage(Option<Bytes>);

impl http_body::Body for EmptyMessage {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.take().map(|bytes| Ok(http_body::Frame::data(bytes))))
    }
}

/// What is wrong, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Right,
    NoCertificate,
    WrongCa,
    Expired,
    NotYetValid,
    Unknown,
    NotAdmitted,
}

const CASES: [Case; 7] = [
    Case::Right,
    Case::NoCertificate,
    Case::WrongCa,
    Case::Expired,
    Case::NotYetValid,
    Case::Unknown,
    Case::NotAdmitted,
];

impl Case {
    const fn name(self) -> &'static str {
        match self {
            Self::Right => "its own certificate",
            Self::NoCertificate => "no certificate",
            Self::WrongCa => "wrong CA",
            Self::Expired => "expired",
            Self::NotYetValid => "not yet valid",
            Self::Unknown => "unknown certificate",
            Self::NotAdmitted => "role not admitted on this connection",
        }
    }

    /// The alert of a handshake that fails (RFC 8446 §6.2), by who refuses.
    const fn alert(self) -> Option<&'static str> {
        match self {
            Self::NoCertificate => Some("certificate_required"),
            Self::WrongCa => Some("unknown_ca"),
            Self::Expired | Self::NotYetValid => Some("certificate_expired"),
            Self::Right | Self::Unknown | Self::NotAdmitted => None,
        }
    }
}

/// What must come of a cell. `admitted`: what each method answers to a well-formed empty request of somebody who may.
fn expected(cell: &Cell, admitted: &BTreeMap<String, String>) -> String {
    if let Some(alert) = cell.case.alert() {
        return format!("TLS {alert}");
    }
    let row = TABLE.iter().find(|(method, _)| *method == cell.method).expect("a row for every method").1;
    if cell.case == Case::Right && row.contains(&cell.role) {
        return admitted[&cell.method].clone();
    }
    format!("{:?}", Code::PermissionDenied)
}

/// The code of one call with an empty message.
async fn call(channel: &mut Channel, path: &str, streams: bool) -> String {
    let request = http::Request::post(format!("http://site{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(EmptyMessage(Some(Bytes::from_static(&[0; 5])))))
        .unwrap();
    let response = soon(channel.ready().await.unwrap().call(request)).await.unwrap();
    if let Some(status) = Status::from_header_map(response.headers()) {
        return format!("{:?}", status.code());
    }
    if streams {
        return format!("{:?}", Code::Ok);
    }
    let mut body = response.into_body();
    loop {
        let frame = std::future::poll_fn(|cx| http_body::Body::poll_frame(std::pin::Pin::new(&mut body), cx));
        if let Ok(trailers) = soon(frame).await.expect("trailers come").unwrap().into_trailers() {
            return format!("{:?}", Status::from_header_map(&trailers).unwrap().code());
        }
    }
}

/// One cell of the table: how it came, whose role, which method, what came of it.
#[derive(Debug)]
struct Cell {
    over: &'static str,
    case: Case,
    role: Role,
    method: String,
    code: String,
}

#[derive(Default)]
struct Table(Vec<Cell>);

impl Table {
    /// Keeps what came of it. Errors are collected, so that the whole table is seen.
    fn add(&mut self, over: &'static str, case: Case, role: Role, method: &str, code: String) {
        self.0.push(Cell { over, case, role, method: method.to_owned(), code });
    }

    /// Every method on one connection.
    async fn calls(&mut self, over: &'static str, case: Case, role: Role, mut channel: Channel) {
        for (method, streams) in served() {
            let code = call(&mut channel, &method, streams).await;
            self.add(over, case, role, &method, code);
        }
    }

    #[expect(clippy::print_stdout, reason = "the table is what this test is for")]
    fn print(&self) {
        let mut groups: BTreeMap<(&str, &str), BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
        for cell in &self.0 {
            let group = groups.entry((cell.over, cell.case.name())).or_default();
            group.entry(&cell.method).or_default().push(&cell.code);
        }
        let mut text = String::new();
        for ((over, case), methods) in groups {
            let first = methods.values().next().unwrap()[0];
            if methods.values().flatten().all(|code| *code == first) {
                writeln!(text, "{over}, {case}: every method, every role: {first}").unwrap();
                continue;
            }
            write!(text, "{over}, {case}\n{:60}", "").unwrap();
            for role in ROLES {
                write!(text, "  {:16}", role.name()).unwrap();
            }
            for (method, codes) in methods {
                write!(text, "\n{method:60}").unwrap();
                for code in codes {
                    write!(text, "  {code:16}").unwrap();
                }
            }
            text.push('\n');
        }
        println!("{text}");
    }

    fn write(&self) {
        let rows: Vec<_> = self
            .0
            .iter()
            .map(|c| {
                json!({
                    "over": c.over, "case": c.case.name(), "role": c.role.name(), "method": c.method, "code": c.code,
                })
            })
            .collect();
        let report = json!({ "name": "authz", "unit": "code", "rows": rows, "peer": null });
        // Packaged tests run where there is no tree.
        let Some(tree) = std::env::var_os("CARGO_MANIFEST_DIR") else { return };
        let dir = Path::new(&tree).join("../target/report");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("authz.json"), serde_json::to_string_pretty(&report).unwrap()).unwrap();
    }
}

fn uri(role: Role) -> String {
    format!("urn:ladewart:test:{}", role.name())
}

fn roles() -> String {
    ROLES.iter().fold(String::new(), |text, role| {
        text + &format!("[[api.certificate]]\nuri = \"{}\"\nrole = \"{}\"\n\n", uri(*role), role.name())
    })
}

/// The certificate of a role in a case.
fn leaf(ca: &Authority, other: &Authority, case: Case, role: Role) -> Option<Leaf> {
    let uri = uri(role);
    Some(match case {
        Case::NoCertificate => return None,
        Case::WrongCa => other.leaf(HOST, Some(&uri), Dates::Now),
        Case::Expired => ca.leaf(HOST, Some(&uri), Dates::Past),
        Case::NotYetValid => ca.leaf(HOST, Some(&uri), Dates::Future),
        Case::Unknown => ca.leaf(HOST, Some(&format!("{uri}:x")), Dates::Now),
        Case::Right | Case::NotAdmitted => ca.leaf(HOST, Some(&uri), Dates::Now),
    })
}

/// The alert that ended a handshake.
fn alert(error: &std::io::Error) -> String {
    match Fault::new(error).alert {
        Some(alert) => format!("TLS {}", alert.name),
        None => format!("{error:?}"),
    }
}

async fn over_socket(table: &mut Table) {
    for role in ROLES {
        let daemon = Daemon::start(vec![(own_uid(), role)]);
        table.calls("socket", Case::Right, role, daemon.channel().await).await;
        daemon.ends().await;
    }
}

async fn over_lan(table: &mut Table, ca: &Authority, other: &Authority) {
    const OVER: &str = "network";
    let site = Site::new(ca, &(roles() + LAN)).await;
    let mut tasks = JoinSet::new();
    let address = site.listen(&mut tasks).await;
    for role in ROLES {
        for case in [Case::Right, Case::Unknown] {
            let leaf = leaf(ca, other, case, role);
            let stream = connect(address, &ca.client(leaf.as_ref())).await.unwrap();
            table.calls(OVER, case, role, caller(stream).await).await;
        }
        for case in [Case::NoCertificate, Case::WrongCa, Case::Expired, Case::NotYetValid] {
            let leaf = leaf(ca, other, case, role);
            let tls = ca.client(leaf.as_ref());
            for method in served().keys() {
                // In TLS 1.3 a client learns of its refusal when it reads.
                let refused = async {
                    let mut stream = connect(address, &tls).await?;
                    let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
                    soon(stream.read_u8()).await
                };
                let code = refused.await.map_or_else(|error| alert(&error), |_| "answered".to_owned());
                table.add(OVER, case, role, method, code);
            }
        }
    }
    site.ends(tasks).await;
}

async fn over_dialed(table: &mut Table, ca: &Authority, other: &Authority, case: Case) {
    const OVER: &str = "dialed";
    let mut text = roles();
    let mut listeners = Vec::new();
    for role in ROLES {
        let (listener, address) = listener().await;
        let admits = |other: &&Role| (case == Case::NotAdmitted) != (**other == role);
        let admitted: Vec<_> = ROLES.iter().filter(admits).map(|r| format!("\"{}\"", r.name())).collect();
        text += &operator(role.name(), address, &admitted.join(", "));
        listeners.push((role, listener));
    }
    let site = Site::new(ca, &text).await;
    let mut tasks = JoinSet::new();
    site.dial(&mut tasks);
    for (role, listener) in &listeners {
        let leaf = leaf(ca, other, case, *role).unwrap();
        match accept(listener, &ca.server(&leaf)).await {
            Ok(stream) => table.calls(OVER, case, *role, caller(stream).await).await,
            Err(error) => {
                for method in served().keys() {
                    table.add(OVER, case, *role, method, alert(&error));
                }
            }
        }
    }
    site.ends(tasks).await;
}

async fn over_coming(table: &mut Table, ca: &Authority, other: &Authority) {
    const OVER: &str = "coming";
    let mut text = roles();
    for role in ROLES {
        let others: Vec<_> =
            ROLES.iter().filter(|r| **r != role).map(|r| format!("\"{}\"", r.name())).collect();
        text += &coming::operator(role.name(), &format!("\"{}\"", role.name()));
        text += &coming::operator(&format!("not-{}", role.name()), &others.join(", "));
    }
    let names: Vec<_> =
        ROLES.iter().flat_map(|r| [r.name().to_owned(), format!("not-{}", r.name())]).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let site = coming::Coming::new(ca, &text, &names).await;
    for role in ROLES {
        for case in CASES {
            let tls = ca.client(leaf(ca, other, case, role).as_ref());
            let name = if case == Case::NotAdmitted {
                format!("not-{}", role.name())
            } else {
                role.name().to_owned()
            };
            if case.alert().is_none() {
                let stream = site.comes(&name, &tls).await.unwrap();
                table.calls(OVER, case, role, caller(stream).await).await;
                continue;
            }
            for method in served().keys() {
                let refused = async {
                    let mut stream = site.comes(&name, &tls).await?;
                    let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
                    soon(stream.read_u8()).await
                };
                let code = refused.await.map_or_else(|error| alert(&error), |_| "answered".to_owned());
                table.add(OVER, case, role, method, code);
            }
        }
    }
    site.ends().await;
}

#[tokio::test]
async fn every_method_role_and_certificate_has_its_exact_code() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let mut table = Table::default();
    over_socket(&mut table).await;
    Box::pin(over_lan(&mut table, &ca, &other)).await;
    Box::pin(over_coming(&mut table, &ca, &other)).await;
    let dialed =
        [Case::Right, Case::Unknown, Case::NotAdmitted, Case::WrongCa, Case::Expired, Case::NotYetValid];
    for case in dialed {
        Box::pin(over_dialed(&mut table, &ca, &other, case)).await;
    }
    table.print();
    table.write();
    // What an admin gets on the socket is the measure for everybody else who may, everywhere.
    let measure = |c: &&Cell| (c.over, c.role) == ("socket", Role::Admin);
    let admitted: BTreeMap<_, _> =
        table.0.iter().filter(measure).map(|c| (c.method.clone(), c.code.clone())).collect();
    for (method, code) in &admitted {
        let refusals = [Code::PermissionDenied, Code::Unauthenticated, Code::Unimplemented, Code::Internal];
        assert!(refusals.iter().all(|refusal| *code != format!("{refusal:?}")), "{method}: {code}");
    }
    assert_eq!(admitted["/ladewart.v1.SiteService/GetSite"], "Ok");
    assert_eq!(admitted["/ladewart.v1.GridService/SetLimit"], "Ok");
    assert_eq!(admitted["/ladewart.v1.GridService/ClearLimit"], "InvalidArgument");
    let wrong: Vec<_> = table.0.iter().filter(|c| c.code != expected(c, &admitted)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(
        table.0.len(),
        (1 + 6 + CASES.len() + dialed.len()) * ROLES.len() * TABLE.len(),
        "no cell is missing"
    );
}
