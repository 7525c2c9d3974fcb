//! TLS over a loopback socket, with a certificate made for the test.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::Arc;

use common::{flushed, message};
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use shardkeeper_transport::{
    ConnectError, Connector, Event, Initiator, Reading, TcpDialer, TransportConfig, TransportError,
    client_config,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;
use url::Url;

/// A peer for one connection: greets, waits for a heartbeat, and closes TCP without a closing handshake of
/// WebSocket or TLS.
async fn peer(name: &str) -> (Url, CertificateDer<'static>, JoinHandle<()>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("wss://localhost:{}/", listener.local_addr().unwrap().port()).parse().unwrap();
    let task = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        // A client that does not trust the certificate ends the handshake, so accepting fails.
        let Ok(tls) = TlsAcceptor::from(Arc::new(config)).accept(tcp).await else { return };
        let mut server = accept_async(tls).await.unwrap();
        server.send(Message::text("x".repeat(100_000))).await.unwrap();
        assert_eq!(server.next().await.unwrap().unwrap(), Message::text("heartbeat"));
    });
    (url, certificate, task)
}

fn trusting(certificate: CertificateDer<'static>) -> TcpDialer {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TcpDialer::with_tls(Arc::new(config))
}

#[tokio::test]
async fn over_tls() {
    let (url, certificate, server) = peer("localhost").await;
    let connector = Connector::new(trusting(certificate), TransportConfig::default());
    // GW-013: WebSockets over TLS.
    let mut connection = connector.connect(&url).await.unwrap();
    assert_eq!(message(&mut connection).await.len(), 100_000);
    connection.enqueue("heartbeat").unwrap();
    flushed(&mut connection, Reading::On).await;
    server.await.unwrap();
    // GW-093: the connection ends without a close code. A TLS end without close_notify counts as a plain end.
    let Event::Closed(closed) = connection.next(Reading::On).await else { panic!("not closed") };
    assert_eq!(closed.by, Initiator::Transport);
    assert!(matches!(closed.error, Some(TransportError::Disconnected)), "{closed:?}");
}

#[tokio::test]
async fn certificates_that_do_not_fit() {
    let (url, _, _server) = peer("localhost").await;
    let unknown_root = TcpDialer::with_tls(client_config());
    let (other_url, certificate, _other_server) = peer("elsewhere.test").await;
    let wrong_name = trusting(certificate);
    for (dialer, url) in [(unknown_root, url), (wrong_name, other_url)] {
        let error = Connector::new(dialer, TransportConfig::default()).connect(&url).await.unwrap_err();
        let ConnectError::Tls { source, peer } = error else { panic!("{error:?}") };
        assert_eq!(peer, format!("localhost:{}", url.port().unwrap()));
        let inner = source.get_ref().unwrap().downcast_ref::<rustls::Error>().unwrap();
        assert!(matches!(inner, rustls::Error::InvalidCertificate(_)), "{inner:?}");
    }
}
