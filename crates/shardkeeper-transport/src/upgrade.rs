//! The client's side of the WebSocket handshake (RFC 6455, 4).
//!
//! Input: an open byte stream and the URL. Output: the codec, or the reason why the answer is not accepted.
//! `tungstenite` writes the request and parses the answer. The answer is checked here because `tungstenite`
//! rejects a `Connection` header with several words, such as `keep-alive, Upgrade`, which is legal and which
//! proxies send.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError, SubProtocolError};
use tokio_tungstenite::tungstenite::handshake::client::{Response, generate_request};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::http::header::{
    AsHeaderName, CONNECTION, HeaderMap, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE, USER_AGENT,
};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::Role;
use url::Url;

use crate::TransportConfig;
use crate::dial::BoxedIo;

/// The size limit of the answer's headers, in bytes. Answers have a few hundred bytes; proxies add some
/// headers of their own.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// The limit of reads for one answer. Each read parses the answer from the beginning, so an answer that
/// arrives byte by byte would cost the square of its length.
const MAX_READS: usize = 512;

/// Performs the handshake. `url` has the scheme `ws` or `wss`.
pub(crate) async fn upgrade(
    mut io: BoxedIo,
    url: &Url,
    user_agent: Option<HeaderValue>,
    config: &TransportConfig,
) -> Result<WebSocketStream<BoxedIo>, Error> {
    let mut request = url.as_str().into_client_request()?;
    if let Some(user_agent) = user_agent {
        request.headers_mut().insert(USER_AGENT, user_agent);
    }
    let (request, key) = generate_request(request)?;
    io.write_all(&request).await?;
    io.flush().await?;

    let mut answer = BytesMut::with_capacity(1024);
    for _ in 0..MAX_READS {
        if io.read_buf(&mut answer).await? == 0 {
            return Err(ProtocolError::HandshakeIncomplete.into());
        }
        if let Some((length, response)) = Response::try_parse(&answer)? {
            check(response, &key)?;
            // The first messages may have arrived together with the answer.
            let behind = answer[length..].to_vec();
            return Ok(WebSocketStream::from_partially_read(
                io,
                behind,
                Role::Client,
                Some(config.websocket()),
            )
            .await);
        }
        if answer.len() > MAX_ANSWER_BYTES {
            break;
        }
    }
    Err(Error::AttackAttempt)
}

/// Checks the answer by RFC 6455, 4.1. Extensions are not checked here: the codec rejects frames changed by
/// an extension that was not requested.
fn check(response: Response, key: &str) -> Result<(), Error> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(Error::Http(Box::new(response)));
    }
    let headers = response.headers();
    let accepted = headers.get(SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
    if !lists(headers, UPGRADE, "websocket") {
        Err(ProtocolError::MissingUpgradeWebSocketHeader.into())
    } else if !lists(headers, CONNECTION, "upgrade") {
        Err(ProtocolError::MissingConnectionUpgradeHeader.into())
    } else if accepted != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
        Err(ProtocolError::SecWebSocketAcceptKeyMismatch.into())
    } else if headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        let unasked = SubProtocolError::ServerSentSubProtocolNoneRequested;
        Err(ProtocolError::SecWebSocketSubProtocolError(unasked).into())
    } else {
        Ok(())
    }
}

/// Whether a header that holds a list, on one line or several, contains this word.
fn lists(headers: &HeaderMap, name: impl AsHeaderName, word: &str) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|listed| listed.trim().eq_ignore_ascii_case(word))
}
