package node

import (
	"encoding/json"

	"github.com/ironring/ironring/api"
)

// VirtualMedia says whether a node boots its ramdisk from the virtual CD drive
// of its BMC and not from the network: driver_info/boot_interface is
// "virtual-media", or "redfish-virtual-media" as Ironic calls it.
func VirtualMedia(n *api.Node) bool {
	var info struct {
		Boot string `json:"boot_interface"`
	}
	if json.Unmarshal(n.GetDriverInfo(), &info) != nil {
		return false
	}
	return info.Boot == "virtual-media" || info.Boot == "redfish-virtual-media"
}

// BIOS says whether a node's firmware boots in BIOS mode: properties/boot_mode.
func BIOS(n *api.Node) bool {
	var props struct {
		Mode string `json:"boot_mode"`
	}
	return json.Unmarshal(n.GetProperties(), &props) == nil && props.Mode == "bios"
}
