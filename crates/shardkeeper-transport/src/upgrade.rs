//! The client's side of the WebSocket handshake (RFC 6455, 4).
//!
//! Input: an open byte stream and the URL. Output: the codec, or what is wrong with the answer. `tungstenite` writes
//! the request and parses the answer. The check of the answer is here because its own one refuses a `Connection` header
//! with more than the one word, as `keep-alive, Upgrade`, which is legal and which proxies write.

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

/// Bound of the answer's headers. Answers have a few hundred bytes; proxies add some headers of their own.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// Bound of the reads that the answer may take. Each parses it from the beginning, so that one which drips in byte by
/// byte would cost the square of its length.
const MAX_READS: usize = 512;

/// `url` has the scheme `ws` or `wss`.
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
            // The first messages may have come with the answer.
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

/// RFC 6455, 4.1. Extensions are not checked: what one that was not asked for does to frames, the codec refuses.
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

/// Whether a header that holds a list, in one line or several, has this word in it.
fn lists(headers: &HeaderMap, name: impl AsHeaderName, word: &str) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|listed| listed.trim().eq_ignore_ascii_case(word))
}
