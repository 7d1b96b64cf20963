package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
)

const startLimit = 60 * time.Second

type etcd struct {
	data, client, peer string
}

// start gives an etcd that serves its client's URL.
func (e etcd) start() (*embed.Etcd, error) {
	config, err := e.config()
	if err != nil {
		return nil, err
	}
	server, err := embed.StartEtcd(config)
	if err != nil {
		return nil, err
	}
	if err := e.wait(server); err != nil {
		server.Close()
		return nil, err
	}
	return server, nil
}

func (e etcd) config() (*embed.Config, error) {
	client, err := url.Parse(e.client)
	if err != nil {
		return nil, err
	}
	peer, err := url.Parse(e.peer)
	if err != nil {
		return nil, err
	}
	config := embed.NewConfig()
	config.Dir = e.data
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.LogLevel = "warn"
	config.LogOutputs = []string{"stderr"}
	// What a test wrote must outlive the process, not the machine.
	config.UnsafeNoFsync = true
	// A file of the log has its size from the start, and tests copy the data of one etcd for many.
	wal.SegmentSizeBytes = 4 << 20
	return config, nil
}

// wait asks until etcd is healthy: its own notification comes before the client's port serves.
func (e etcd) wait(server *embed.Etcd) error {
	deadline := time.After(startLimit)
	for {
		select {
		case err := <-server.Err():
			return err
		case <-deadline:
			return fmt.Errorf("not healthy within %s: %w", startLimit, e.healthy())
		case <-time.After(20 * time.Millisecond):
			if e.healthy() == nil {
				return nil
			}
		}
	}
}

func (e etcd) healthy() error {
	response, err := http.Get(e.client + "/health")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}
