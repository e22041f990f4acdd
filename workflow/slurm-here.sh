#!/bin/sh
# A Slurm of one node on this machine, to try the workflow on: for a container or a
# virtual machine that can be thrown away, as root, with the Debian packages slurm-wlm
# and munge. Not for a cluster.
#
#   workflow/slurm-here.sh start [FOLDER]    until `sinfo` shows an idle node
#   workflow/slurm-here.sh stop [FOLDER]
#
# Keys, sockets, logs and states lie in FOLDER (default /tmp/slurm-here); the settings in
# /etc/slurm, because some tools look nowhere else. Settings that are there and not ours
# are left alone. No cgroups, no accounting: `sacct` knows nothing.
set -eu

action=${1:-}
place=${2:-/tmp/slurm-here}
settings=/etc/slurm/slurm.conf
mark="# made by workflow/slurm-here.sh"

refuse() { echo "slurm-here: $*" >&2; exit 2; }

check() {
  [ "$(id -u)" = 0 ] || refuse "needs root, in a container that can be thrown away."
  for tool in munged slurmctld slurmd sinfo; do
    command -v "$tool" >/dev/null || PATH=$PATH:/usr/sbin command -v "$tool" \
      >/dev/null || refuse "needs $tool: apt-get install slurm-wlm munge"
  done
  if [ -e "$settings" ] && ! grep -q "$mark" "$settings"; then
    refuse "$settings is there and not of this script; it is left alone."
  fi
}

start_munge() {
  mkdir -p "$place/munge"
  chown -R munge:munge "$place/munge"
  chmod 755 "$place" "$place/munge"
  head -c 1024 /dev/urandom >"$place/munge/key"
  chown munge:munge "$place/munge/key"
  chmod 400 "$place/munge/key"
  su -s /bin/sh munge -c "$(command -v munged) --force \
    --key-file=$place/munge/key --socket=$place/munge/socket \
    --seed-file=$place/munge/seed --pid-file=$place/munge/pid \
    --log-file=$place/munge/log"
}

write_settings() {
  mkdir -p /etc/slurm "$place/state" "$place/spool"
  cpus=$(nproc)
  memory=$(awk '/MemTotal/ { print int($2 / 1024 * 0.9) }' /proc/meminfo)
  cat >"$settings" <<END
$mark
ClusterName=here
SlurmctldHost=$(hostname)(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket=$place/munge/socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$place/state
SlurmdSpoolDir=$place/spool
SlurmctldPidFile=$place/slurmctld.pid
SlurmdPidFile=$place/slurmd.pid
SlurmctldLogFile=$place/slurmctld.log
SlurmdLogFile=$place/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
NodeName=$(hostname) NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory State=UNKNOWN
PartitionName=here Nodes=$(hostname) Default=YES MaxTime=INFINITE State=UP
END
}

wait_until_idle() {
  for _ in $(seq 60); do
    case $(sinfo -h -o %T 2>/dev/null) in
      idle | mixed | allocated) return ;;
    esac
    sleep 0.5
  done
  tail -n 5 "$place"/*.log >&2
  refuse "no idle node after half a minute."
}

end() { # a program by its number; wait until it is gone, or dead and not collected
  kill "$1" 2>/dev/null || return 0
  for _ in $(seq 40); do
    case $(ps -o stat= -p "$1") in "" | Z*) return ;; esac
    sleep 0.25
  done
}

stop() {
  # by the numbers that the programs have written down, never by a name
  for file in "$place/slurmd.pid" "$place/slurmctld.pid" "$place/munge/pid"; do
    if [ -s "$file" ]; then end "$(cat "$file")"; fi
    rm -f "$file"
  done
  if grep -qs "$mark" "$settings"; then rm -f "$settings"; fi
}

PATH=$PATH:/usr/sbin
case $action in
  start)
    check
    stop
    mkdir -p "$place"
    start_munge
    write_settings
    slurmctld -c
    slurmd
    wait_until_idle
    sinfo
    ;;
  stop) check && stop ;;
  *) refuse "say start or stop." ;;
esac
