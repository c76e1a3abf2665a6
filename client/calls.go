package client

import (
	"context"

	"github.com/ironring/ironring/api"
)

// Each method is one call of the service api.Ironring; its rules stand there.

// CreateNode enrols a node, with its ports if the request has any.
func (c *Client) CreateNode(ctx context.Context, req *api.CreateNodeRequest) (*api.NodeReply, error) {
	return call(ctx, c, write, req, api.IronringClient.CreateNode)
}

// CreateNodes enrols up to 256 nodes in one call. Each is enrolled with its ports or not at all, and has a result of its own.
func (c *Client) CreateNodes(ctx context.Context, req *api.CreateNodesRequest) (*api.CreateNodesReply, error) {
	return call(ctx, c, write, req, api.IronringClient.CreateNodes)
}

// GetNode reads a node, its flow and its lock.
func (c *Client) GetNode(ctx context.Context, req *api.GetNodeRequest) (*api.NodeReply, error) {
	return call(ctx, c, read, req, api.IronringClient.GetNode)
}

// ListNodes reads one page of nodes; Nodes reads them all.
func (c *Client) ListNodes(ctx context.Context, req *api.ListNodesRequest) (*api.ListNodesReply, error) {
	return call(ctx, c, read, req, api.IronringClient.ListNodes)
}

// UpdateNode changes spec fields of a node.
func (c *Client) UpdateNode(ctx context.Context, req *api.UpdateNodeRequest) (*api.NodeReply, error) {
	return call(ctx, c, write, req, api.IronringClient.UpdateNode)
}

// DeleteNode forgets a node and its ports.
func (c *Client) DeleteNode(ctx context.Context, req *api.DeleteNodeRequest) (*api.WriteReply, error) {
	return call(ctx, c, write, req, api.IronringClient.DeleteNode)
}

// Provision asks for a verb of the lifecycle. The answer means that a majority has the work on disk; Wait tells its end.
func (c *Client) Provision(ctx context.Context, req *api.ProvisionRequest) (*api.FlowReply, error) {
	return call(ctx, c, write, req, api.IronringClient.Provision)
}

// Power asks for a change of power; as with Provision the work comes after the answer.
func (c *Client) Power(ctx context.Context, req *api.PowerRequest) (*api.FlowReply, error) {
	return call(ctx, c, write, req, api.IronringClient.Power)
}

// GetFlow reads the unfinished or last flow of a node.
func (c *Client) GetFlow(ctx context.Context, req *api.GetFlowRequest) (*api.FlowReply, error) {
	return call(ctx, c, read, req, api.IronringClient.GetFlow)
}

// Explain says why a node is where it is.
func (c *Client) Explain(ctx context.Context, req *api.ExplainRequest) (*api.ExplainReply, error) {
	return call(ctx, c, read, req, api.IronringClient.Explain)
}

// GetInventory reads what the agent found.
func (c *Client) GetInventory(ctx context.Context, req *api.GetInventoryRequest) (*api.Inventory, error) {
	return call(ctx, c, read, req, api.IronringClient.GetInventory)
}

// History reads the past of a node.
func (c *Client) History(ctx context.Context, req *api.HistoryRequest) (*api.HistoryReply, error) {
	return call(ctx, c, read, req, api.IronringClient.History)
}

// CreatePort adds a NIC to a node.
func (c *Client) CreatePort(ctx context.Context, req *api.CreatePortRequest) (*api.PortReply, error) {
	return call(ctx, c, write, req, api.IronringClient.CreatePort)
}

// ListPorts reads the NICs of one node or of all.
func (c *Client) ListPorts(ctx context.Context, req *api.ListPortsRequest) (*api.ListPortsReply, error) {
	return call(ctx, c, read, req, api.IronringClient.ListPorts)
}

// DeletePort removes a NIC.
func (c *Client) DeletePort(ctx context.Context, req *api.DeletePortRequest) (*api.WriteReply, error) {
	return call(ctx, c, write, req, api.IronringClient.DeletePort)
}

// SetNetwork creates or replaces a provisioning network.
func (c *Client) SetNetwork(ctx context.Context, req *api.SetNetworkRequest) (*api.WriteReply, error) {
	return call(ctx, c, write, req, api.IronringClient.SetNetwork)
}

// ListNetworks reads all networks and the addresses given out.
func (c *Client) ListNetworks(ctx context.Context, req *api.ListNetworksRequest) (*api.ListNetworksReply, error) {
	return call(ctx, c, read, req, api.IronringClient.ListNetworks)
}

// DeleteNetwork removes a network.
func (c *Client) DeleteNetwork(ctx context.Context, req *api.DeleteNetworkRequest) (*api.WriteReply, error) {
	return call(ctx, c, write, req, api.IronringClient.DeleteNetwork)
}

// BootRecord reads what a node's machine would get now from one peer.
func (c *Client) BootRecord(ctx context.Context, req *api.BootRecordRequest) (*api.BootRecordReply, error) {
	return call(ctx, c, read, req, api.IronringClient.BootRecord)
}

// ClusterStatus reads the health of the cluster, as the answering peer sees it.
func (c *Client) ClusterStatus(ctx context.Context, req *api.ClusterStatusRequest) (*api.ClusterStatusReply, error) {
	return call(ctx, c, local, req, api.IronringClient.ClusterStatus)
}

// CreateJoinToken makes a token for one new peer. It has no request id: Timeout may leave an unused token behind, which expires.
func (c *Client) CreateJoinToken(ctx context.Context, req *api.CreateJoinTokenRequest) (*api.CreateJoinTokenReply, error) {
	return call(ctx, c, write, req, api.IronringClient.CreateJoinToken)
}

// Leave takes a peer out of the cluster for good. It has no request id.
func (c *Client) Leave(ctx context.Context, req *api.LeaveRequest) (*api.WriteReply, error) {
	return call(ctx, c, write, req, api.IronringClient.Leave)
}

// CreateClientCert signs the key of a remote client. It has no request id: Timeout may leave an unused certificate behind.
func (c *Client) CreateClientCert(ctx context.Context, req *api.CreateClientCertRequest) (*api.CreateClientCertReply, error) {
	return call(ctx, c, write, req, api.IronringClient.CreateClientCert)
}

// Version says what the answering peer is.
func (c *Client) Version(ctx context.Context, req *api.VersionRequest) (*api.VersionReply, error) {
	return call(ctx, c, local, req, api.IronringClient.Version)
}
