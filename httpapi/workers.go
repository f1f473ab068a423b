package httpapi

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"

	"github.com/google/uuid"

	"github.com/kvctrl/kvctrl/registry"
)

// workerInfo is a worker as LMCache shows it.
type workerInfo struct {
	Instance      string  `json:"instance_id"`
	Worker        int64   `json:"worker_id"`
	IP            string  `json:"ip"`
	Port          int64   `json:"port"`
	PeerInitURL   *string `json:"peer_init_url"`
	Registered    seconds `json:"registration_time"`
	LastHeartbeat seconds `json:"last_heartbeat_time"`
}

func infoOf(w registry.WorkerInfo) workerInfo {
	return workerInfo{
		Instance: w.Instance, Worker: w.Worker, IP: w.IP, Port: w.Port, PeerInitURL: w.PeerInitURL,
		Registered: seconds(w.Registered), LastHeartbeat: seconds(w.LastHeartbeat),
	}
}

// countedWorker is a worker in /controller/workers.
type countedWorker struct {
	workerInfo
	Keys int64 `json:"key_count"`
}

// allInstances is the name that /query_worker_info reserves; an instance of that name
// can only be asked for in /controller/workers.
const allInstances = "all"

// queryWorkerInfo answers one instance's workers by rank, or those asked for in that
// order; of all instances, in order of registration.
func (s *Server) queryWorkerInfo(w http.ResponseWriter, r *http.Request) error {
	return s.parsed(w, r, bodyQueryWorkerInfo, func(vs values) error {
		if err := s.fresh(w, r, queryOf(r)); err != nil {
			return err
		}
		if vs[workerInfoIDs].beyond() {
			return &senselessError{"a worker id beyond 64 bits"}
		}
		infos := workerInfos(s.opts.State.Registry(), vs[workerInfoInstance].str, vs[workerInfoIDs].ints)
		return s.writeJSON(w, http.StatusOK, struct {
			EventID string       `json:"event_id"`
			Workers []workerInfo `json:"worker_infos"`
		}{"QueryWorkerInfo" + uuid.NewString(), infos})
	})
}

// workerInfos lists workers; ids repeat as often as they are asked for, unknown ones
// are left out, and none means every one.
func workerInfos(reg *registry.Registry, instance string, ids []int64) []workerInfo {
	out := []workerInfo{}
	var instances [][]registry.WorkerInfo
	switch instance {
	case allInstances:
		for _, inst := range reg.Instances() {
			instances = append(instances, inst.Workers)
		}
	case "": // the registry's word for all, and nobody's name
	default:
		workers := reg.Workers(instance)
		slices.SortFunc(workers, func(a, b registry.WorkerInfo) int { return cmp.Compare(a.Worker, b.Worker) })
		instances = append(instances, workers)
	}
	for _, workers := range instances {
		if len(ids) == 0 {
			for _, w := range workers {
				out = append(out, infoOf(w))
			}
			continue
		}
		byID := make(map[int64]registry.WorkerInfo, len(workers))
		for _, w := range workers {
			byID[w.Worker] = w
		}
		for _, id := range ids {
			if w, known := byID[id]; known {
				out = append(out, infoOf(w))
			}
		}
	}
	return out
}

// queryInstance answers the first registered instance that has a worker at an address.
func (s *Server) queryInstance(w http.ResponseWriter, r *http.Request) error {
	return s.parsed(w, r, bodyQueryInstance, func(vs values) error {
		if err := s.fresh(w, r, queryOf(r)); err != nil {
			return err
		}
		ip := vs[queryInstanceIP].str
		instance, known := s.opts.State.Registry().InstanceByIP(ip)
		if !known {
			return &problem{code: codeUnknownAddress, detail: fmt.Sprintf("no worker is registered at address %q", ip)}
		}
		return s.writeJSON(w, http.StatusOK, struct {
			EventID string `json:"event_id"`
			Res     string `json:"res"`
		}{"QueryInst" + uuid.NewString(), instance})
	})
}

// workers lists workers in order of registration. A rank alone restricts nothing, as
// in LMCache.
func (s *Server) workers(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	instance, byInstance := q.get("instance_id")
	worker, byWorker := q.integer("worker_id")
	if err := s.fresh(w, r, q); err != nil {
		return err
	}
	reg := s.opts.State.Registry()
	if byInstance && byWorker {
		info, known := reg.Worker(registry.WorkerRef{Instance: instance, Worker: worker})
		if !known {
			return &problem{code: codeUnknownWorker, plain: true, detail: fmt.Sprintf("Worker (%s, %d) not found", instance, worker)}
		}
		return s.writeJSON(w, http.StatusOK, countedWorker{infoOf(info), info.Keys})
	}
	list := []countedWorker{}
	if !byInstance || instance != "" { // "" is the registry's word for all
		for _, info := range reg.Workers(instance) {
			list = append(list, countedWorker{infoOf(info), info.Keys})
		}
	}
	if byInstance && len(list) == 0 {
		return &problem{code: codeUnknown, plain: true, detail: fmt.Sprintf("No workers found for instance %s", instance)}
	}
	return s.writeJSON(w, http.StatusOK, struct {
		Workers []countedWorker `json:"workers"`
		Total   int             `json:"total_count"`
	}{list, len(list)})
}

// keyStats counts keys; a chunk counts once per worker and location.
func (s *Server) keyStats(w http.ResponseWriter, r *http.Request) error {
	if err := s.fresh(w, r, queryOf(r)); err != nil {
		return err
	}
	type row struct {
		Instance string `json:"instance_id"`
		Keys     int64  `json:"key_count"`
		Workers  int    `json:"worker_count"`
	}
	answer := struct {
		Keys      int64 `json:"total_key_count"`
		Instances int   `json:"total_instance_count"`
		Workers   int   `json:"total_worker_count"`
		Rows      []row `json:"instances"`
	}{Rows: []row{}}
	for _, inst := range s.opts.State.Registry().Instances() {
		answer.Keys += inst.Keys
		answer.Instances++
		answer.Workers += len(inst.Workers)
		answer.Rows = append(answer.Rows, row{inst.Instance, inst.Keys, len(inst.Workers)})
	}
	return s.writeJSON(w, http.StatusOK, answer)
}

// instances is our own view of the fleet.
func (s *Server) instances(w http.ResponseWriter, r *http.Request) error {
	if err := s.fresh(w, r, queryOf(r)); err != nil {
		return err
	}
	type locationRow struct {
		Location string `json:"location"`
		Keys     int64  `json:"key_count"`
		Gaps     int64  `json:"gaps"`
		Lossy    bool   `json:"lossy"`
		Numbered bool   `json:"numbered"`
	}
	type workerRow struct {
		Worker        int64             `json:"worker_id"`
		IP            string            `json:"ip"`
		Port          int64             `json:"port"`
		PeerInitURL   *string           `json:"peer_init_url"`
		Liveness      registry.Liveness `json:"liveness"`
		SyncState     string            `json:"sync_state"`
		SyncFailures  int               `json:"sync_failures"`
		Registered    seconds           `json:"registration_time"`
		LastHeartbeat seconds           `json:"last_heartbeat_time"`
		Keys          int64             `json:"key_count"`
		Locations     []locationRow     `json:"locations"`
	}
	type instanceRow struct {
		Instance string      `json:"instance_id"`
		Keys     int64       `json:"key_count"`
		Workers  []workerRow `json:"workers"`
	}
	rows := []instanceRow{}
	for _, inst := range s.opts.State.Registry().Instances() {
		row := instanceRow{inst.Instance, inst.Keys, []workerRow{}}
		for _, x := range inst.Workers {
			locations := []locationRow{}
			for _, l := range x.Locations {
				locations = append(locations, locationRow{l.Location, l.Keys, l.Gaps, l.Lossy, l.Numbered})
			}
			row.Workers = append(row.Workers, workerRow{
				x.Worker, x.IP, x.Port, x.PeerInitURL, x.Liveness, x.SyncState, x.SyncFailures, seconds(x.Registered), seconds(x.LastHeartbeat), x.Keys, locations,
			})
		}
		rows = append(rows, row)
	}
	return s.writeJSON(w, http.StatusOK, struct {
		Instances []instanceRow `json:"instances"`
	}{rows})
}
