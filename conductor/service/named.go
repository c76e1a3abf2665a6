package service

import (
	"strings"

	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// named is an error about a node with the node's name in the place of its id:
// the replicated state knows nodes by id, people by name. Kind and subject
// stay.
func (s *Service) named(err error) error {
	id := errs.SubjectOf(err)
	if err == nil || !node.ValidID(id) {
		return err
	}
	n := s.cfg.Cluster.Store().View().Node(id)
	if n.GetName() == "" || !strings.Contains(err.Error(), id) {
		return err
	}
	return errs.About(errs.KindOf(err), id, "%s", strings.ReplaceAll(err.Error(), id, n.GetName()))
}
