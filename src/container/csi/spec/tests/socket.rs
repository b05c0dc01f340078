use std::path::Path;
use std::sync::Arc;

use futures_util::stream;
use tokio::net::UnixListener;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Status};

use super::*;

struct Plugin;

impl Identity for Plugin {
    async fn get_plugin_info(&self, _request: GetPluginInfoRequest) -> Result<GetPluginInfoResponse, Status> {
        Ok(GetPluginInfoResponse { name: "csi.holdfast.io".into(), ..Default::default() })
    }
}

impl Controller for Plugin {
    async fn delete_volume(&self, request: DeleteVolumeRequest) -> Result<DeleteVolumeResponse, Status> {
        match request.volume_id.as_str() {
            "" => Err(Status::invalid_argument("volume_id is missing")),
            _ => Ok(DeleteVolumeResponse {}),
        }
    }
}

impl GroupController for Plugin {}

impl Node for Plugin {
    async fn node_get_info(&self, _request: NodeGetInfoRequest) -> Result<NodeGetInfoResponse, Status> {
        Ok(NodeGetInfoResponse { node_id: "n1".into(), ..Default::default() })
    }
}

/// Serves all four on a socket in `dir`, until the test ends.
async fn serve(dir: &Path) -> Channel {
    let path = dir.join("csi.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let connections = stream::unfold(listener, |listener| async move {
        let connection = listener.accept().await.map(|(connection, _)| connection);
        Some((connection, listener))
    });
    let plugin = Arc::new(Plugin);
    let server = Server::builder()
        .add_service(IdentityServer::new(plugin.clone()))
        .add_service(ControllerServer::new(plugin.clone()))
        .add_service(GroupControllerServer::new(plugin.clone()))
        .add_service(NodeServer::new(plugin))
        .serve_with_incoming(connections);
    tokio::spawn(server);
    Endpoint::try_from(format!("unix:{}", path.display())).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn calls_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let channel = serve(dir.path()).await;
    let info = IdentityClient::new(channel.clone()).get_plugin_info(GetPluginInfoRequest {}).await.unwrap();
    assert_eq!(info.name, "csi.holdfast.io");
    let info = NodeClient::new(channel.clone()).node_get_info(NodeGetInfoRequest {}).await.unwrap();
    assert_eq!(info.node_id, "n1");
    let mut controller = ControllerClient::new(channel);
    controller.delete_volume(DeleteVolumeRequest { volume_id: "v1".into(), ..Default::default() }).await.unwrap();
    let refused = controller.delete_volume(DeleteVolumeRequest::default()).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "volume_id is missing"));
}

#[tokio::test]
async fn calls_that_are_left_out_are_unimplemented() {
    let dir = tempfile::tempdir().unwrap();
    let channel = serve(dir.path()).await;
    let refused = IdentityClient::new(channel.clone()).probe(ProbeRequest {}).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unimplemented, "Probe is not supported"));
    let request = GroupControllerGetCapabilitiesRequest {};
    let mut groups = GroupControllerClient::new(channel);
    assert_eq!(groups.group_controller_get_capabilities(request).await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn calls_and_services_that_are_not_known_are_unimplemented() {
    let dir = tempfile::tempdir().unwrap();
    let mut grpc = tonic::client::Grpc::new(serve(dir.path()).await);
    for path in ["/csi.v1.Identity/Sing", "/csi.v1.Identity/", "/csi.v1.Choir/Probe"] {
        let refused = service::ask::<ProbeRequest, ProbeResponse, _>(&mut grpc, path, ProbeRequest {}).await;
        assert_eq!(refused.unwrap_err().code(), Code::Unimplemented, "{path}");
    }
}

#[test]
fn servers_have_the_names_of_the_specification() {
    use tonic::server::NamedService;
    assert_eq!(IdentityServer::<Plugin>::NAME, "csi.v1.Identity");
    assert_eq!(ControllerServer::<Plugin>::NAME, "csi.v1.Controller");
    assert_eq!(GroupControllerServer::<Plugin>::NAME, "csi.v1.GroupController");
    assert_eq!(NodeServer::<Plugin>::NAME, "csi.v1.Node");
}
