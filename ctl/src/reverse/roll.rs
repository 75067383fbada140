//! Which appliances are here, each with its socket.
//!
//! ```text
//! (none) ──arrives──▶ connected ──the same certificate again──▶ renewed: the socket leads to the new connection
//!    ▲                    │                                         │ the old one ends: nothing changes
//!    └─────── gone ◀──────┴─────── the last one ends ◀──────────────┘
//! ```

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
};

use tokio::{sync::watch, task::JoinSet};
use tonic::transport::Channel;

use super::{
    appliance::{Appliance, Arrived},
    forward::Socket,
};

/// What has changed.
#[derive(Debug)]
pub(super) enum Change {
    /// It is here, with this socket.
    Connected(Appliance, PathBuf),
    /// It has opened its next connection.
    Renewed(Appliance, PathBuf),
    /// It is not here any more.
    Gone(Appliance),
}

#[derive(Debug)]
struct Here {
    appliance: Appliance,
    /// Number of the connection in use.
    connection: u64,
    channel: watch::Sender<Channel>,
    socket: Socket,
}

/// See the module. Sockets go with it.
#[derive(Debug)]
pub(super) struct Roll {
    dir: PathBuf,
    here: HashMap<String, Here>,
    ends: JoinSet<(String, u64)>,
    connections: u64,
}

impl Roll {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, here: HashMap::new(), ends: JoinSet::new(), connections: 0 }
    }

    /// Takes in a connection. The error is a sentence: there can be no socket.
    pub(super) fn arrive(&mut self, arrived: Arrived) -> Result<Change, String> {
        let Arrived { mut appliance, channel, gone } = arrived;
        self.connections += 1;
        let connection = self.connections;
        let fingerprint = appliance.fingerprint.clone();
        let change = if let Some(here) = self.here.get_mut(&fingerprint) {
            here.connection = connection;
            here.channel.send_replace(channel);
            appliance.name.clone_from(&here.appliance.name);
            here.appliance = appliance.clone();
            Change::Renewed(appliance, here.socket.path().to_owned())
        } else {
            let taken: HashSet<_> = self.here.values().map(|here| here.appliance.name.as_str()).collect();
            if taken.contains(appliance.name.as_str()) {
                // Two certificates with one name: both may be right, e.g. the old and the new one.
                appliance.name = format!("{}-{}", appliance.name, &fingerprint[..16]);
            }
            let (channel, current) = watch::channel(channel);
            let path = self.dir.join(format!("{}.sock", appliance.name));
            let socket = Socket::open(path, current)?;
            let change = Change::Connected(appliance.clone(), socket.path().to_owned());
            self.here.insert(fingerprint.clone(), Here { appliance, connection, channel, socket });
            change
        };
        self.ends.spawn(async move {
            // An error says the same: the other half is gone.
            let _ = gone.await;
            (fingerprint, connection)
        });
        Ok(change)
    }

    /// Waits for an appliance to go; `None` while there is none. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Change> {
        loop {
            let Ok((fingerprint, connection)) = self.ends.join_next().await? else { continue };
            if self.here.get(&fingerprint).is_some_and(|here| here.connection == connection) {
                let here = self.here.remove(&fingerprint)?;
                return Some(Change::Gone(here.appliance));
            }
        }
    }
}
