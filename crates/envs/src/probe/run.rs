//! Running a probe: ask, judge, and ask again until the answer is good or the attempts are used up.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use flowline_core::{
    error::chain,
    verdict::{Outcome, Verdict},
};

use super::{Client, ClientRequest, HttpError, HttpProbe, HttpUrl, judge};

impl HttpProbe {
    /// Asks through `client` until the answer passes, at most [`attempts`](Self::attempts) times; the verdict on the last one.
    ///
    /// A server that cannot be reached or does not answer in time is a failure of the server. Only a probe that could not be made at all
    /// (a name that leads nowhere, a request that is not HTTP) is an error. May be dropped at any point.
    pub async fn run(&self, client: &Client) -> Verdict {
        let mut attempt = 1;
        loop {
            let mut verdict = self.once(client).await;
            if verdict.passed() || attempt >= self.attempts {
                if attempt > 1
                    && let Some(last) = verdict.evidence.last_mut()
                {
                    last.seen = format!("{} (attempt {attempt} of {})", last.seen, self.attempts);
                }
                return verdict;
            }
            attempt += 1;
            tokio::time::sleep(self.pause.unsigned_abs()).await;
        }
    }

    async fn once(&self, client: &Client) -> Verdict {
        let limit = Duration::try_from(self.timeout).unwrap_or_default();
        let address = match self.connect_to {
            Some(address) => address,
            None => match resolve(&self.url).await {
                Ok(address) => address,
                Err(problem) => return Verdict::of(Outcome::Error, self.subject(), problem),
            },
        };
        let request = ClientRequest::get(self.url.authority(), self.url.path());
        match client.send(address, request, limit).await {
            Ok(response) => judge(self, &response),
            Err(error @ HttpError::Malformed { .. }) => {
                Verdict::of(Outcome::Error, self.subject(), chain(&error))
            }
            Err(error) => Verdict::of(Outcome::Fail, self.subject(), chain(&error)),
        }
    }
}

/// Where a connection to `url` goes. Names below `localhost` are this host (RFC 6761, section 6.3), also where the system does not know.
async fn resolve(url: &HttpUrl) -> Result<SocketAddr, String> {
    let host = url.host().trim_end_matches('.').to_ascii_lowercase();
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok((address, url.port()).into());
    }
    if host == "localhost" || host.ends_with(".localhost") {
        return Ok((Ipv4Addr::LOCALHOST, url.port()).into());
    }
    match tokio::net::lookup_host((host.as_str(), url.port())).await {
        Ok(mut addresses) => addresses.next().ok_or_else(|| format!("`{host}` leads nowhere")),
        Err(error) => Err(format!("`{host}` cannot be found: {error}")),
    }
}
