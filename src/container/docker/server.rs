//! Listening for Docker's calls.

use std::io;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Router, extract::DefaultBodyLimit};
use tokio::net::UnixListener;

use super::driver::{Driver, DriverError};
use super::protocol::{Answer, Capabilities, Request};
use crate::daemon::shutdown::Shutdown;
use crate::remote::operator::OperatorError;

const CONTENT: &str = "application/vnd.docker.plugins.v1.1+json";
/// A name and some options.
const REQUEST_BYTES_MAX: usize = 64 << 10;

/// Serves until it is told to stop; what is under way then is answered.
///
/// # Errors
/// The listener failed.
pub async fn serve(listener: UnixListener, driver: Arc<Driver>, shutdown: Shutdown) -> io::Result<()> {
    let stop = async move { shutdown.wait().await };
    axum::serve(listener, router(driver)).with_graceful_shutdown(stop).await
}

/// A call and who answers it.
macro_rules! call {
    (|$driver:ident, $request:ident| $answer:expr) => {
        post(|State($driver): State<Arc<Driver>>, body: Bytes| async move {
            match read(&body) {
                Ok($request) => answered(&$request, $answer),
                Err(refusal) => failed(refusal),
            }
        })
    };
}

fn router(driver: Arc<Driver>) -> Router {
    Router::new()
        .route("/Plugin.Activate", post(|| async { said(&activate()) }))
        .route("/VolumeDriver.Capabilities", post(|| async { said(&capabilities()) }))
        .route("/VolumeDriver.Create", call!(|driver, request| driver.create(&request).await))
        .route("/VolumeDriver.Remove", call!(|driver, request| driver.remove(&request).await))
        .route("/VolumeDriver.Mount", call!(|driver, request| driver.mount(&request).await))
        .route("/VolumeDriver.Unmount", call!(|driver, request| driver.unmount(&request).await))
        .route("/VolumeDriver.Path", call!(|driver, request| driver.path(&request)))
        .route("/VolumeDriver.Get", call!(|driver, request| driver.get(&request).await))
        .route("/VolumeDriver.List", call!(|driver, request| driver.list().await))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .with_state(driver)
}

fn activate() -> Answer {
    Answer { implements: Some(["VolumeDriver"]), ..Answer::default() }
}

fn capabilities() -> Answer {
    Answer { capabilities: Some(Capabilities { scope: "global" }), ..Answer::default() }
}

fn read(body: &Bytes) -> Result<Request, String> {
    // A list has nothing to say.
    let body = if body.is_empty() { &b"{}"[..] } else { body };
    serde_json::from_slice(body).map_err(|error| format!("the request was not understood: {error}"))
}

fn answered(request: &Request, answer: Result<Answer, DriverError>) -> Response {
    match answer {
        Ok(answer) => said(&answer),
        // Docker asks everybody for every name.
        Err(error @ DriverError::Cluster(OperatorError::NotFound(_))) => failed(error.to_string()),
        Err(error) => {
            tracing::warn!(volume = request.name, id = request.id, %error, "a call of Docker's failed");
            failed(error.to_string())
        }
    }
}

fn said(answer: &Answer) -> Response {
    respond(StatusCode::OK, answer)
}

/// Docker reads the sentence of an answer that is no success.
fn failed(err: String) -> Response {
    respond(StatusCode::INTERNAL_SERVER_ERROR, &Answer { err, ..Answer::default() })
}

fn respond(status: StatusCode, answer: &Answer) -> Response {
    match serde_json::to_vec(answer) {
        Ok(body) => (status, [(CONTENT_TYPE, CONTENT)], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
