//! `serve` and `halt`; and the router for the length of one command, where nobody serves.

use flowline_core::error::BoxError;
use serde_json::json;

use crate::{
    Delivery,
    cli::{Answer, Session},
    delivery::{DeliveryError, Serving},
};

pub(super) async fn serve(session: &Session, port: u16) -> Result<Answer, BoxError> {
    let delivery = session.delivery()?;
    let serving = delivery.serve(port).await?;
    let address = serving.address();
    let told = json!({ "address": address.to_string(), "url": format!("http://{address}/") });
    session.tell(delivery.clock().now(), "serve.listening", told)?;
    session.say(format!(
        "the router listens at http://{address}/; Ctrl-C ends it, and what was started keeps running"
    ));
    for environment in delivery.environments().await? {
        for component in delivery.topology().components.keys() {
            let url = delivery.url(&environment.name, component).await?;
            session.say(format!("  {}  {component}  {url}", environment.name));
        }
    }
    session.cancel().cancelled().await;
    serving.stop().await?;
    Ok(Answer::text("").with("address", address.to_string()))
}

pub(super) async fn halt(session: &Session) -> Result<Answer, BoxError> {
    session.delivery()?.halt().await?;
    let text = "every process of this host is stopped; `serve` starts again what should run\n";
    Ok(Answer::text(text).with("halted", true))
}

/// The router while a command needs it: another process', or one of its own for as long.
pub(super) struct Routed(Option<Serving>);

impl Routed {
    pub(super) async fn ensure(session: &Session, delivery: &Delivery) -> Result<Self, BoxError> {
        if delivery.is_served().await? {
            return Ok(Self(None));
        }
        match delivery.serve(0).await {
            Ok(serving) => {
                let command = format!("`{} serve`", session.program());
                session.say(format!(
                    "nobody serves this host: routing at {} for this command; users are led there once {command} runs",
                    serving.address()
                ));
                Ok(Self(Some(serving)))
            }
            // Somebody was quicker.
            Err(DeliveryError::ServedElsewhere { .. }) => Ok(Self(None)),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the router free, and answers `done`.
    pub(super) async fn over<T>(self, done: Result<T, DeliveryError>) -> Result<T, BoxError> {
        if let Some(serving) = self.0 {
            let stopped = serving.stop().await;
            let done = done?;
            stopped?;
            return Ok(done);
        }
        Ok(done?)
    }
}
