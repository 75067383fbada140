//! One authenticated connection, from its begin to its end, with both in the journal.

use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{Interface, Peer, Presented},
    clock::Clock,
    identity,
    journal::{Entry, Journal},
};

/// What a session needs.
#[derive(Debug, Clone)]
pub(super) struct Served {
    pub(super) interface: Interface,
    pub(super) journal: Journal,
    pub(super) clock: Clock,
}

impl Served {
    /// Serves the connection of an operator until it ends or is retired. Gives the reason of its end.
    pub(super) async fn operator(
        &self,
        name: &str,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        shown: Presented,
        retire: CancellationToken,
    ) -> String {
        let begun = self.clock.now();
        let fingerprint = identity::hex(&shown.fingerprint);
        let subject = shown.subject.clone();
        let peer = Peer::Certificate(shown.into());
        let (actor, role) = match self.interface.caller(&peer) {
            Ok(caller) => {
                tracing::info!(operator = name, caller = caller.issuer, "the operator is connected");
                (caller.issuer, Some(caller.role))
            }
            Err(reason) => {
                tracing::warn!(operator = name, "the operator is connected and may do nothing: {reason}");
                (String::new(), None)
            }
        };
        let body = json!({ "fingerprint": fingerprint, "subject": subject, "role": role });
        self.remark("remote.connected", name, &actor, body);
        let why = match self.interface.serve_stream(io, peer, retire).await {
            Ok(why) => why,
            Err(error) => error.to_string(),
        };
        let seconds = self.clock.now().mono.since(begun.mono).as_secs();
        tracing::info!(operator = name, seconds, "the operator's connection ended: {why}");
        let body = json!({ "fingerprint": fingerprint, "reason": why, "seconds": seconds });
        self.remark("remote.disconnected", name, &actor, body);
        why
    }

    fn remark(&self, kind: &str, operator: &str, actor: &str, body: serde_json::Value) {
        // Nothing waits for it: the connection is as good without.
        drop(self.journal.append(vec![Entry {
            at: self.clock.now().wall,
            kind: kind.to_owned(),
            subject: operator.to_owned(),
            actor: actor.to_owned(),
            body,
        }]));
    }
}
