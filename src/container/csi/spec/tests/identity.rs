use super::*;

#[test]
fn who_the_plugin_is() {
    same("", GetPluginInfoRequest {});
    same(
        "0a0f6373692e686f6c64666173742e696f1205302e312e301a0d0a06636f6d6d69741203616263",
        GetPluginInfoResponse {
            name: "csi.holdfast.io".into(),
            vendor_version: "0.1.0".into(),
            manifest: map("commit", "abc"),
        },
    );
}

#[test]
fn what_the_plugin_can_do() {
    let service =
        plugin_capability::Service { r#type: plugin_capability::service::Type::GroupControllerService.into() };
    let expansion =
        plugin_capability::VolumeExpansion { r#type: plugin_capability::volume_expansion::Type::Online.into() };
    same("", GetPluginCapabilitiesRequest {});
    same(
        "0a040a0208030a0412020801",
        GetPluginCapabilitiesResponse {
            capabilities: vec![
                PluginCapability { r#type: Some(plugin_capability::Type::Service(service)) },
                PluginCapability { r#type: Some(plugin_capability::Type::VolumeExpansion(expansion)) },
            ],
        },
    );
}

#[test]
fn how_the_plugin_is() {
    same("", ProbeRequest {});
    same("0a020801", ProbeResponse { ready: Some(true) });
    same("0a00", ProbeResponse { ready: Some(false) });
    same("", ProbeResponse { ready: None });
}
