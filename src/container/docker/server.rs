//! Listening for Docker's calls.

use std::io;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Router, extract::DefaultBodyLimit};

use super::calls::Calls;
use super::driver::{Driver, DriverError};
use super::protocol::{Answer, Capabilities, Request};
use crate::daemon::shutdown::Shutdown;
use crate::remote::operator::OperatorError;

const CONTENT: &str = "application/vnd.docker.plugins.v1.1+json";
/// A name and some options.
const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Docker makes a call again whose plugin has died, and has nothing to say then (see [`super::calls`]).
const SAYS_NOTHING: &str = "the plugin ended before it had answered, and Docker does not say again what it had asked for \
    (moby/moby issue 39331): do again what you have asked of Docker";

/// Serves until it is told to stop; what is under way then is answered.
///
/// # Errors
/// What axum says; a listener that fails is tried again.
pub async fn serve(calls: Calls, driver: Arc<Driver>, shutdown: Shutdown) -> io::Result<()> {
    let stop = async move { shutdown.wait().await };
    axum::serve(calls, router(driver)).with_graceful_shutdown(stop).await
}

/// A call and who answers it.
macro_rules! call {
    (|$driver:ident, $request:ident| $answer:expr) => {
        post(|State($driver): State<Arc<Driver>>, body: Bytes| async move {
            match read(&body) {
                Ok($request) => answered(&$request, $answer),
                Err(refusal) => {
                    tracing::warn!("a call of Docker's was not understood: {refusal}");
                    failed(refusal)
                }
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
        .route("/VolumeDriver.List", post(list))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .layer(map_response(of_one_call))
        .with_state(driver)
}

async fn list(State(driver): State<Arc<Driver>>) -> Response {
    answered(&Request::default(), driver.list().await)
}

/// The connection ends with it.
async fn of_one_call(mut response: Response) -> Response {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn activate() -> Answer {
    Answer { implements: Some(["VolumeDriver"]), ..Answer::default() }
}

fn capabilities() -> Answer {
    Answer { capabilities: Some(Capabilities { scope: "global" }), ..Answer::default() }
}

fn read(body: &Bytes) -> Result<Request, String> {
    if body.is_empty() {
        return Err(SAYS_NOTHING.to_string());
    }
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
