#!/usr/bin/env bash
# A real Slurm on this machine alone, without systemd: to try the cluster path where there is no cluster.
#   scripts/slurm_single_node.sh start | stop | status
# Runs as root, in a container too. Debian and Ubuntu: apt-get install slurmctld slurmd slurm-client munge
# It writes /etc/slurm/slurm.conf (jobs look for it there) only where there is none, or where it wrote it itself.
# SLURM_CPUS (default: all cores) and SLURM_NODE_MB (default: 9/10 of the memory) make the node smaller.
set -euo pipefail

CONF=/etc/slurm/slurm.conf
MARK='# written by scripts/slurm_single_node.sh'
STATE=${TMPDIR:-/tmp}/slurm-single-node
SOCKET=/run/munge/munge.socket.2

die() { echo "error: $*" >&2; exit 2; }

# Whether the process that a pid file names is that program, and more than a zombie that nobody has reaped.
alive() { [ -s "$2" ] && grep -qE "^[0-9]+ \($1\) [^ZX]" "/proc/$(cat "$2")/stat" 2> /dev/null; }

answers() { timeout 10 scontrol ping 2>/dev/null | grep -q 'is UP'; }

wait_for() { # seconds, what is waited for, command ...
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || die "$what did not come up; see the logs in $STATE"
    sleep 0.5
  done
}

ours() { [ -f "$CONF" ] && [ "$(head -n 1 "$CONF")" = "$MARK" ]; }

write_conf() {
  local host cpus memory
  host=$(hostname -s)
  cpus=${SLURM_CPUS:-$(nproc)}
  memory=${SLURM_NODE_MB:-$(awk '/^MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)}
  mkdir -p "$(dirname "$CONF")"
  cat > "$CONF" <<END
$MARK
ClusterName=single
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$STATE/ctld
SlurmdSpoolDir=$STATE/d
SlurmctldPidFile=$STATE/slurmctld.pid
SlurmdPidFile=$STATE/slurmd.pid
SlurmctldLogFile=$STATE/slurmctld.log
SlurmdLogFile=$STATE/slurmd.log
MpiDefault=none
# no cgroups: a container may not write them
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
# no slurmdbd: finished jobs must stay in squeue long enough to be seen
AccountingStorageType=accounting_storage/none
MinJobAge=3600
# cores and memory are handed out; a job that takes more memory than it asked for is ended
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
# a machine that was suspended, or was short of memory for a while, comes back by itself
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
}

start() {
  [ "$(id -u)" = 0 ] || die "Slurm's daemons must be started by root"
  for program in munged slurmctld slurmd sinfo; do
    command -v "$program" > /dev/null || PATH=$PATH:/usr/sbin:/sbin command -v "$program" > /dev/null ||
      die "$program is not installed; apt-get install slurmctld slurmd slurm-client munge"
  done
  if [ -e "$CONF" ] && ! ours; then
    die "$CONF was not written by this script; this machine has a Slurm of its own, so use that one"
  fi
  if alive slurmctld "$STATE/slurmctld.pid" && alive slurmd "$STATE/slurmd.pid" && answers; then
    echo "already running"
    return
  fi
  mkdir -p "$STATE/ctld" "$STATE/d"
  if [ ! -s /etc/munge/munge.key ]; then
    install -d -o munge -g munge -m 700 /etc/munge
    (umask 077 && head -c 128 /dev/urandom > /etc/munge/munge.key)
    chown munge:munge /etc/munge/munge.key
  fi
  if ! munge -n > /dev/null 2>&1; then
    install -d -o munge -g munge -m 755 /run/munge
    install -d -o munge -g munge -m 700 /var/log/munge /var/lib/munge
    rm -f "$SOCKET"
    # as root, with --force where / belongs to somebody else, as it does in some containers
    setpriv --reuid=munge --regid=munge --clear-groups munged --force > "$STATE/munged.log" 2>&1
    cp /run/munge/munged.pid "$STATE/munged.pid"
    wait_for 10 munged sh -c 'munge -n > /dev/null 2>&1'
  fi
  write_conf
  alive slurmctld "$STATE/slurmctld.pid" || slurmctld -c
  wait_for 20 slurmctld answers
  alive slurmd "$STATE/slurmd.pid" || slurmd
  wait_for 30 "the node" sh -c '[ "$(sinfo --noheader --format %T)" = idle ]'
  status
}

stop() {
  if command -v scancel > /dev/null && ours && answers; then
    scancel --user=root --quiet || true
    wait_for 60 "the end of the jobs" sh -c '[ -z "$(squeue --noheader --states=running,completing)" ]'
  fi
  local stopped=0 name pid
  for name in slurmd slurmctld munged; do
    alive "$name" "$STATE/$name.pid" || continue
    pid=$(cat "$STATE/$name.pid")
    kill "$pid"
    echo "$pid" > "$STATE/ending"
    for _ in $(seq 100); do
      alive "$name" "$STATE/ending" || break
      sleep 0.1
    done
    if alive "$name" "$STATE/ending"; then kill -9 "$pid"; fi
    stopped=$((stopped + 1))
  done
  if ours; then rm -f "$CONF"; fi
  rm -rf "$STATE"
  echo "stopped $stopped daemons"
}

status() {
  if command -v sinfo > /dev/null && answers; then
    sinfo --noheader --format 'partition %P, node %N is %T: %c CPUs, %m MB'
    squeue --noheader --format 'job %i %T %j'
  else
    echo "not running"
    return 3
  fi
}

PATH=$PATH:/usr/sbin:/sbin
case "${1:-}" in
  start) start ;;
  stop) stop ;;
  status) status ;;
  *) die "say start, stop or status" ;;
esac
