//! The services: for each a trait to answer its calls, a server that brings them from the wire, and a client.
//!
//! All three come from one table of the service's calls. Servers and clients know nothing of sockets: a server is
//! given to [`tonic::transport::Server`], a client is given a channel.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::uri::PathAndQuery;
use prost::Message;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::server::{NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::controller::*;
use super::group::*;
use super::identity::*;
use super::node::*;

/// An answer on its way; errors are in it, as the status of a response.
pub type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

/// `Trait("name on the wire") as Server, Client { Call(method: Request -> Response); … }`
macro_rules! service {
    (
        $(#[$doc:meta])*
        $service:ident($name:literal) as $server:ident, $client:ident {
            $($call:ident($method:ident: $request:ident -> $response:ident);)+
        }
    ) => {
        $(#[$doc])*
        pub trait $service: Send + Sync + 'static {
            $(
                fn $method(&self, _request: $request) -> impl Future<Output = Result<$response, Status>> + Send {
                    ready(Err(Status::unimplemented(concat!(stringify!($call), " is not supported"))))
                }
            )+
        }

        /// Brings calls to one who answers them. Cheap to clone.
        pub struct $server<T> {
            service: Arc<T>,
        }

        impl<T: $service> $server<T> {
            pub fn new(service: Arc<T>) -> $server<T> {
                $server { service }
            }
        }

        impl<T> Clone for $server<T> {
            fn clone(&self) -> $server<T> {
                $server { service: self.service.clone() }
            }
        }

        impl<T> NamedService for $server<T> {
            const NAME: &'static str = $name;
        }

        impl<T: $service> tower_service::Service<http::Request<Body>> for $server<T> {
            type Response = http::Response<Body>;
            type Error = Infallible;
            type Future = Answer;

            fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: http::Request<Body>) -> Answer {
                let service = self.service.clone();
                match request.uri().path() {
                    $(
                        concat!("/", $name, "/", stringify!($call)) => answer(request, move |message: $request| {
                            let service = service.clone();
                            async move { service.$method(message).await }
                        }),
                    )+
                    _ => Box::pin(ready(Ok(Status::unimplemented("there is no such call").into_http()))),
                }
            }
        }

        /// Asks; for tests.
        #[derive(Clone, Debug)]
        pub struct $client<C> {
            inner: tonic::client::Grpc<C>,
        }

        impl<C: GrpcService<Body, ResponseBody = Body>> $client<C> {
            pub fn new(channel: C) -> $client<C> {
                $client { inner: tonic::client::Grpc::new(channel) }
            }

            $(
                /// # Errors
                /// What the server answers, or `UNAVAILABLE`.
                pub async fn $method(&mut self, request: $request) -> Result<$response, Status> {
                    ask(&mut self.inner, concat!("/", $name, "/", stringify!($call)), request).await
                }
            )+
        }
    };
}

/// Reads a message from a request, and makes a response of what is answered to it.
fn answer<Q, A, C, F>(request: http::Request<Body>, call: C) -> Answer
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
    C: Fn(Q) -> F + Send + 'static,
    F: Future<Output = Result<A, Status>> + Send + 'static,
{
    Box::pin(async move {
        let mut grpc = tonic::server::Grpc::new(ProstCodec::<A, Q>::default());
        Ok(grpc.unary(Unary(call), request).await)
    })
}

/// A call as tonic wants it.
struct Unary<C>(C);

impl<Q, A, C, F> UnaryService<Q> for Unary<C>
where
    C: Fn(Q) -> F,
    F: Future<Output = Result<A, Status>> + Send + 'static,
{
    type Response = A;
    type Future = Pin<Box<dyn Future<Output = Result<Response<A>, Status>> + Send>>;

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let answered = (self.0)(request.into_inner());
        Box::pin(async move { answered.await.map(Response::new) })
    }
}

/// Asks for `path`, `/service/call`.
pub(super) async fn ask<Q, A, C>(grpc: &mut tonic::client::Grpc<C>, path: &'static str, message: Q) -> Result<A, Status>
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
    C: GrpcService<Body, ResponseBody = Body>,
{
    grpc.ready().await.map_err(|error| {
        let error: Box<dyn std::error::Error + Send + Sync> = error.into();
        Status::unavailable(error.to_string())
    })?;
    let codec = ProstCodec::<Q, A>::default();
    let answered = grpc.unary(Request::new(message), PathAndQuery::from_static(path), codec).await?;
    Ok(answered.into_inner())
}

service! {
    /// What the plugin is, and how it is.
    Identity("csi.v1.Identity") as IdentityServer, IdentityClient {
        GetPluginInfo(get_plugin_info: GetPluginInfoRequest -> GetPluginInfoResponse);
        GetPluginCapabilities(get_plugin_capabilities: GetPluginCapabilitiesRequest -> GetPluginCapabilitiesResponse);
        Probe(probe: ProbeRequest -> ProbeResponse);
    }
}

service! {
    /// Volumes and snapshots.
    Controller("csi.v1.Controller") as ControllerServer, ControllerClient {
        CreateVolume(create_volume: CreateVolumeRequest -> CreateVolumeResponse);
        DeleteVolume(delete_volume: DeleteVolumeRequest -> DeleteVolumeResponse);
        ControllerPublishVolume(
            controller_publish_volume: ControllerPublishVolumeRequest -> ControllerPublishVolumeResponse
        );
        ControllerUnpublishVolume(
            controller_unpublish_volume: ControllerUnpublishVolumeRequest -> ControllerUnpublishVolumeResponse
        );
        ValidateVolumeCapabilities(
            validate_volume_capabilities: ValidateVolumeCapabilitiesRequest -> ValidateVolumeCapabilitiesResponse
        );
        ListVolumes(list_volumes: ListVolumesRequest -> ListVolumesResponse);
        GetCapacity(get_capacity: GetCapacityRequest -> GetCapacityResponse);
        ControllerGetCapabilities(
            controller_get_capabilities: ControllerGetCapabilitiesRequest -> ControllerGetCapabilitiesResponse
        );
        CreateSnapshot(create_snapshot: CreateSnapshotRequest -> CreateSnapshotResponse);
        DeleteSnapshot(delete_snapshot: DeleteSnapshotRequest -> DeleteSnapshotResponse);
        ListSnapshots(list_snapshots: ListSnapshotsRequest -> ListSnapshotsResponse);
        GetSnapshot(get_snapshot: GetSnapshotRequest -> GetSnapshotResponse);
        ControllerExpandVolume(
            controller_expand_volume: ControllerExpandVolumeRequest -> ControllerExpandVolumeResponse
        );
        ControllerGetVolume(controller_get_volume: ControllerGetVolumeRequest -> ControllerGetVolumeResponse);
        ControllerModifyVolume(
            controller_modify_volume: ControllerModifyVolumeRequest -> ControllerModifyVolumeResponse
        );
        ControllerListVolumeHealth(
            controller_list_volume_health: ControllerListVolumeHealthRequest -> ControllerListVolumeHealthResponse
        );
        ControllerGetVolumeHealth(
            controller_get_volume_health: ControllerGetVolumeHealthRequest -> ControllerGetVolumeHealthResponse
        );
    }
}

service! {
    /// Snapshots of several volumes.
    GroupController("csi.v1.GroupController") as GroupControllerServer, GroupControllerClient {
        GroupControllerGetCapabilities(
            group_controller_get_capabilities:
                GroupControllerGetCapabilitiesRequest -> GroupControllerGetCapabilitiesResponse
        );
        CreateVolumeGroupSnapshot(
            create_volume_group_snapshot: CreateVolumeGroupSnapshotRequest -> CreateVolumeGroupSnapshotResponse
        );
        DeleteVolumeGroupSnapshot(
            delete_volume_group_snapshot: DeleteVolumeGroupSnapshotRequest -> DeleteVolumeGroupSnapshotResponse
        );
        GetVolumeGroupSnapshot(
            get_volume_group_snapshot: GetVolumeGroupSnapshotRequest -> GetVolumeGroupSnapshotResponse
        );
    }
}

service! {
    /// Volumes on one node.
    Node("csi.v1.Node") as NodeServer, NodeClient {
        NodeStageVolume(node_stage_volume: NodeStageVolumeRequest -> NodeStageVolumeResponse);
        NodeUnstageVolume(node_unstage_volume: NodeUnstageVolumeRequest -> NodeUnstageVolumeResponse);
        NodePublishVolume(node_publish_volume: NodePublishVolumeRequest -> NodePublishVolumeResponse);
        NodeUnpublishVolume(node_unpublish_volume: NodeUnpublishVolumeRequest -> NodeUnpublishVolumeResponse);
        NodeGetVolumeStats(node_get_volume_stats: NodeGetVolumeStatsRequest -> NodeGetVolumeStatsResponse);
        NodeExpandVolume(node_expand_volume: NodeExpandVolumeRequest -> NodeExpandVolumeResponse);
        NodeGetCapabilities(node_get_capabilities: NodeGetCapabilitiesRequest -> NodeGetCapabilitiesResponse);
        NodeGetInfo(node_get_info: NodeGetInfoRequest -> NodeGetInfoResponse);
        NodeGetVolumeHealth(node_get_volume_health: NodeGetVolumeHealthRequest -> NodeGetVolumeHealthResponse);
        NodeGetStorageHealth(node_get_storage_health: NodeGetStorageHealthRequest -> NodeGetStorageHealthResponse);
    }
}
