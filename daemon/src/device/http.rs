//! One device that is asked over HTTP/1.1.
//!
//! In: a path. Out: the whole body of an answer 200, or why there is none. Invariant: one request at a time; an answer that is
//! late, long or of another kind never counts; nothing is followed elsewhere. For devices in the site's own network: no TLS,
//! no password.

use std::time::Duration;

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

/// Longest answer.
const MOST: usize = 64 * 1024;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The connection was not made.
    #[error("no connection to {address}: {why}")]
    Connect {
        /// Host and port.
        address: String,
        /// The system's words.
        why: String,
    },
    /// Nothing whole came in time.
    #[error("no answer from {address}{path} within {within:?}")]
    Timeout {
        /// Host and port.
        address: String,
        /// What was asked for.
        path: String,
        /// How long it was waited for.
        within: Duration,
    },
    /// It answers that it does not.
    #[error("{address}{path} answers {status}{}", advice(*status))]
    Status {
        /// Host and port.
        address: String,
        /// What was asked for.
        path: String,
        /// What came.
        status: StatusCode,
    },
    /// More than a device has to say.
    #[error("the answer of {address}{path} is longer than {MOST} bytes")]
    Long {
        /// Host and port.
        address: String,
        /// What was asked for.
        path: String,
    },
    /// It speaks, but not HTTP, or breaks off.
    #[error("{address} does not answer in HTTP: {why}")]
    Broken {
        /// Host and port.
        address: String,
        /// In words.
        why: String,
    },
}

impl HttpError {
    /// What stays the same while the values in the message change: it is told once.
    #[must_use]
    pub fn cause(&self) -> String {
        match self {
            Self::Connect { .. } => "connect".to_owned(),
            Self::Timeout { .. } => "timeout".to_owned(),
            Self::Status { status, path, .. } => format!("status {} {path}", status.as_u16()),
            Self::Long { .. } => "long".to_owned(),
            Self::Broken { .. } => "broken".to_owned(),
        }
    }
}

fn advice(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "; switch its password off in the site's network",
        StatusCode::NOT_FOUND => "; it is another device, or its path is another",
        _ if status.is_redirection() => "; nothing is followed elsewhere: name that address",
        _ => "",
    }
}

/// A device.
#[derive(Debug)]
pub struct Client {
    address: String,
    answer: Duration,
    sender: Option<SendRequest<Full<Bytes>>>,
    /// What carries the connection; ends with this.
    connection: JoinSet<()>,
}

impl Client {
    /// `address`: host and port; `answer`: for a whole answer, the connection included.
    #[must_use]
    pub fn new(address: String, answer: Duration) -> Self {
        Self { address, answer, sender: None, connection: JoinSet::new() }
    }

    /// Asks; with a body it is a POST.
    pub async fn ask(&mut self, path: &str, body: Option<&str>) -> Result<Bytes, HttpError> {
        let outcome = timeout(self.answer, self.once_or_again(path, body)).await.unwrap_or_else(|_| {
            Err(HttpError::Timeout {
                address: self.address.clone(),
                path: path.to_owned(),
                within: self.answer,
            })
        });
        if outcome.is_err() {
            // Whatever still comes on this connection belongs to nobody.
            self.sender = None;
            self.connection.abort_all();
        }
        outcome
    }

    /// A kept connection may have been closed meanwhile: then a new one is tried once.
    async fn once_or_again(&mut self, path: &str, body: Option<&str>) -> Result<Bytes, HttpError> {
        let kept = self.sender.as_ref().is_some_and(|s| !s.is_closed());
        match self.once(path, body).await {
            Err(HttpError::Broken { .. }) if kept => {
                self.sender = None;
                self.once(path, body).await
            }
            outcome => outcome,
        }
    }

    async fn once(&mut self, path: &str, body: Option<&str>) -> Result<Bytes, HttpError> {
        let mut sender = match self.sender.take().filter(|s| !s.is_closed()) {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let broken = |why: String| HttpError::Broken { address: self.address.clone(), why };
        let mut request = Request::builder()
            .method(if body.is_some() { Method::POST } else { Method::GET })
            .uri(path)
            .header(header::HOST, &self.address)
            .header(header::ACCEPT, "application/json");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = Full::new(Bytes::from(body.unwrap_or_default().to_owned()));
        let request = request.body(body).map_err(|e| broken(e.to_string()))?;
        sender.ready().await.map_err(|e| broken(words(&e)))?;
        let answer = sender.send_request(request).await.map_err(|e| broken(words(&e)))?;
        let status = answer.status();
        if status != StatusCode::OK {
            return Err(HttpError::Status { address: self.address.clone(), path: path.to_owned(), status });
        }
        let whole = Limited::new(answer.into_body(), MOST).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                HttpError::Long { address: self.address.clone(), path: path.to_owned() }
            } else {
                broken(error.to_string())
            }
        })?;
        self.sender = Some(sender);
        Ok(whole.to_bytes())
    }

    async fn connect(&mut self) -> Result<SendRequest<Full<Bytes>>, HttpError> {
        let address = self.address.clone();
        let stream = TcpStream::connect(&address)
            .await
            .map_err(|e| HttpError::Connect { address: address.clone(), why: e.to_string() })?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|e| HttpError::Broken { address, why: words(&e) })?;
        self.connection.abort_all();
        while self.connection.try_join_next().is_some() {}
        self.connection.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a device ended");
            }
        });
        Ok(sender)
    }
}

/// The library's words with their cause.
fn words(error: &hyper::Error) -> String {
    use std::error::Error as _;
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// Serves the answers in turn, one per request; an empty one is silence.
    async fn device(answers: Vec<String>) -> (String, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut answers = answers.into_iter();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while let Ok(n @ 1..) = stream.read_buf(&mut request).await {
                    assert!(n > 0);
                    if !request.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    request.clear();
                    let Some(answer) = answers.next() else { return };
                    if answer.is_empty() {
                        continue;
                    }
                    let _ = stream.write_all(answer.as_bytes()).await;
                    if answer.contains("close") || !answer.starts_with("HTTP") {
                        break;
                    }
                }
            }
        });
        (address, tasks)
    }

    fn good(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn answers_come_over_one_connection_and_over_a_new_one_when_it_was_closed() {
        let closing = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"b\":2}".to_owned();
        let (address, _tasks) = device(vec![good("{\"a\":1}"), closing, good("[]")]).await;
        let mut client = Client::new(address, Duration::from_secs(20));
        assert_eq!(client.ask("/", None).await.unwrap(), "{\"a\":1}");
        assert_eq!(client.ask("/", None).await.unwrap(), "{\"b\":2}");
        assert_eq!(client.ask("/", None).await.unwrap(), "[]");
    }

    #[tokio::test]
    async fn bad_answers_are_refused_by_name() {
        let long = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(MOST + 1));
        let answers = [
            "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            "HTTP/1.1 301 Moved Permanently\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            "SSH-2.0-dropbear\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 50\r\nconnection: close\r\n\r\n{\"a\":",
            &long,
            "",
            "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood",
        ];
        let (address, _tasks) = device(answers.map(str::to_owned).to_vec()).await;
        let mut client = Client::new(address.clone(), Duration::from_secs(20));
        let mut said = async || client.ask("/status", None).await.unwrap_err().to_string();
        assert_eq!(
            said().await,
            format!(
                "{address}/status answers 401 Unauthorized; switch its password off in the site's network"
            )
        );
        assert!(said().await.contains("answers 301 Moved Permanently; nothing is followed elsewhere"));
        assert!(said().await.starts_with(&format!("{address} does not answer in HTTP: ")));
        assert!(said().await.contains("does not answer in HTTP"), "it breaks off");
        assert!(said().await.ends_with("/status is longer than 65536 bytes"));
        let mut client = Client::new(address.clone(), Duration::from_millis(200));
        let late = client.ask("/status", None).await.unwrap_err().to_string();
        assert_eq!(late, format!("no answer from {address}/status within 200ms"));
        let mut client = Client::new(address, Duration::from_secs(20));
        assert_eq!(client.ask("/status", None).await.unwrap(), "good");
        let nobody = Client::new("127.0.0.1:1".to_owned(), Duration::from_secs(20)).ask("/", None).await;
        assert!(matches!(nobody, Err(HttpError::Connect { .. })), "{nobody:?}");
    }
}
