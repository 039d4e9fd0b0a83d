//! The servers of a client: how to connect to them, and which one takes the next call.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::error::{Error, Result};

/// How long calls avoid a server that could not be reached, if there are others.
const AVOID: Duration = Duration::from_secs(5);

/// Tls says how to connect. It prints no key.
#[derive(Clone, Default)]
pub(crate) enum Tls {
    /// TLS with the system's certificate authorities, plaintext to this machine.
    #[default]
    Default,
    Plaintext,
    /// PEM texts: the only certificate authorities to trust, and the client certificate with its key.
    Files {
        ca: Option<Vec<u8>>,
        identity: Option<(Vec<u8>, Vec<u8>)>,
    },
}

/// Servers are one or more servers that share a ledger. Calls take turns over those that can be reached.
pub(crate) struct Servers {
    list: Vec<Arc<Server>>,
    turn: AtomicUsize,
}

pub(crate) struct Server {
    pub channel: Channel,
    avoid_until: Mutex<Option<Instant>>,
}

impl Servers {
    /// Parses HOST:PORT, or several with commas between them. It does not connect.
    pub fn new(target: &str, tls: &Tls, user_agent: &str) -> Result<Self> {
        let mut list = Vec::new();
        for address in target.split(',') {
            let channel = endpoint(address.trim(), tls, user_agent)?.connect_lazy();
            list.push(Arc::new(Server { channel, avoid_until: Mutex::new(None) }));
        }
        Ok(Self { list, turn: AtomicUsize::new(0) })
    }

    /// Returns the server for the next call.
    pub fn pick(&self) -> Arc<Server> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let in_turn = (0..self.list.len()).map(|i| &self.list[(turn + i) % self.list.len()]);
        in_turn.min_by_key(|s| s.avoid_until().filter(|until| *until > now)).expect("there is at least one server").clone()
    }

    /// Reports whether a call can go to a server that is not avoided.
    pub fn any_left(&self) -> bool {
        let now = Instant::now();
        self.list.iter().any(|s| s.avoid_until().is_none_or(|until| until <= now))
    }
}

impl Server {
    pub fn avoid(&self) {
        *self.avoid_until.lock().expect("not poisoned") = Some(Instant::now() + AVOID);
    }

    fn avoid_until(&self) -> Option<Instant> {
        *self.avoid_until.lock().expect("not poisoned")
    }
}

fn endpoint(address: &str, tls: &Tls, user_agent: &str) -> Result<Endpoint> {
    let wrong = |why: &str| Error::Usage(format!("{address:?} is not the address of a server: {why}"));
    let address = address.strip_prefix("dns:///").unwrap_or(address);
    let tls = match tls {
        Tls::Default if is_loopback(address) => None,
        Tls::Plaintext => None,
        Tls::Default => Some(ClientTlsConfig::new().with_native_roots()),
        Tls::Files { ca, identity } => {
            let mut config = match ca {
                Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                None => ClientTlsConfig::new().with_native_roots(),
            };
            if let Some((certificate, key)) = identity {
                config = config.identity(tonic::transport::Identity::from_pem(certificate, key));
            }
            Some(config)
        }
    };
    let uri = if address.starts_with("unix:") {
        address.to_owned()
    } else if address.is_empty() || address.contains(['/', ' ', '@']) {
        return Err(wrong("it must be HOST or HOST:PORT"));
    } else {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let port = if has_port(address) { "" } else { ":443" };
        format!("{scheme}://{address}{port}")
    };
    let mut endpoint = Endpoint::from_shared(uri)
        .map_err(|e| wrong(&e.to_string()))?
        .user_agent(user_agent)
        .map_err(|_| Error::Usage(format!("the user agent {user_agent:?} is not valid in a header")))?
        .connect_timeout(Duration::from_secs(10))
        .http2_keep_alive_interval(Duration::from_secs(30)) // the server permits 15 s
        .keep_alive_timeout(Duration::from_secs(10))
        // A download fills the default window of 64 KiB once for each round trip.
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    if let Some(tls) = tls {
        endpoint = endpoint.tls_config(tls).map_err(|e| Error::Usage(format!("TLS for {address}: {}", causes(&e))))?;
    }
    Ok(endpoint)
}

fn causes(e: &dyn std::error::Error) -> String {
    match e.source() {
        Some(cause) => format!("{e}: {}", causes(cause)),
        None => e.to_string(),
    }
}

fn has_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !port.contains(']') && (!host.contains(':') || host.ends_with(']')))
}

/// Reports whether an address is on this machine, judged by its text alone: a loopback address, "localhost" or a Unix socket.
fn is_loopback(address: &str) -> bool {
    if address.starts_with("unix:") {
        return true;
    }
    let host = if has_port(address) { address.rsplit_once(':').map_or(address, |(host, _)| host) } else { address };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback() {
        for yes in ["127.0.0.1:50051", "localhost", "LOCALHOST:1", "[::1]:50051", "unix:/run/lpfileshare.sock", "127.0.0.1"] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in ["files.example.com:443", "10.0.0.1:50051", "[2001:db8::1]:443", "localhost.example.com"] {
            assert!(!is_loopback(no), "{no}");
        }
    }

    #[tokio::test]
    async fn targets() {
        for (target, tls, uri) in [
            ("127.0.0.1:50051", &Tls::Default, "http://127.0.0.1:50051/"),
            ("files.example.com", &Tls::Plaintext, "http://files.example.com:443/"),
            ("dns:///[::1]", &Tls::Plaintext, "http://[::1]:443/"),
            ("10.0.0.1:1", &Tls::Files { ca: None, identity: None }, "https://10.0.0.1:1/"),
        ] {
            match endpoint(target, tls, "test") {
                Ok(e) => assert_eq!(e.uri(), uri),
                Err(e) => panic!("{target}: {e}"),
            }
        }
        for wrong in ["", "http://files.example.com", "a b", "user@host"] {
            assert!(matches!(Servers::new(wrong, &Tls::Plaintext, "test"), Err(Error::Usage(_))), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn avoids_a_server_that_failed() {
        let servers = Servers::new("127.0.0.1:1,127.0.0.1:2", &Tls::Default, "test").unwrap_or_else(|e| panic!("{e}"));
        let first = servers.pick();
        first.avoid();
        assert!(servers.any_left());
        assert!((0..4).all(|_| !Arc::ptr_eq(&servers.pick(), &first)));
        servers.pick().avoid();
        assert!(!servers.any_left());
        assert!(Arc::ptr_eq(&servers.pick(), &first), "the one that failed first is tried first");
    }
}
