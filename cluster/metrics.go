package cluster

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ironring/ironring/internal/errs"
)

// metrics of one peer. The zero value of a field is never used: newMetrics
// makes all of them, registered or not.
type metrics struct {
	commands  prometheus.Counter
	batch     prometheus.Histogram
	proposals *prometheus.CounterVec
	leader    prometheus.Gauge
	term      prometheus.Gauge
	terms     prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		commands:  prometheus.NewCounter(prometheus.CounterOpts{Name: "ironring_cluster_commands_applied_total", Help: "Commands applied here."}),
		batch:     prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ironring_cluster_commands_per_entry", Help: "Commands packed into one entry by this peer.", Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, 256}}),
		proposals: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ironring_cluster_proposals_total", Help: "Proposals of this peer by outcome."}, []string{"outcome"}),
		leader:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "ironring_cluster_leader", Help: "1 while this peer does the leader's duties."}),
		term:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "ironring_cluster_term", Help: "Raft term in which this peer led last."}),
		terms:     prometheus.NewCounter(prometheus.CounterOpts{Name: "ironring_cluster_leaderships_total", Help: "How often this peer became the leader."}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.commands, m.batch, m.proposals, m.leader, m.term, m.terms} {
		if err := reg.Register(c); err != nil {
			return nil, errs.New(errs.Internal, "register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) applied(n int) { m.commands.Add(float64(n)) }
func (m *metrics) packed(n int)  { m.batch.Observe(float64(n)) }

func (m *metrics) proposed(err error) {
	outcome := "ok"
	if err != nil {
		outcome = errs.KindOf(err).String()
	}
	m.proposals.WithLabelValues(outcome).Inc()
}
