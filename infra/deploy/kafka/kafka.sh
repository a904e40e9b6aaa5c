#!/usr/bin/env bash
# Runs one node of Apache Kafka on this machine, on loopback, without Docker. It needs Java 17; fetching needs Maven too.
#
#   kafka.sh fetch           get the broker into var/kafka/libs (about 45 MB, once)
#   kafka.sh start           start it in the background; returns when it answers
#   kafka.sh stop            stop it, keeping what it holds
#
# Then: MARQUEE_EVENT_LOG=kafka://127.0.0.1:9092
#
# Variables: KAFKA_DATA (folder of logs and settings, default var/kafka/data), KAFKA_PORT (9092), KAFKA_CONTROLLER_PORT
# (9093), KAFKA_ADVERTISED_PORT (where clients are sent, for a proxy in between; KAFKA_PORT), KAFKA_LIBS (default
# var/kafka/libs). KAFKA_TLS, a folder with ca.pem and server.pem (key and certificate of this
# host): clients come by TLS only, as KAFKA_USER with KAFKA_PASSWORD, by SCRAM-SHA-512 or PLAIN:
# MARQUEE_EVENT_LOG=kafkas://USER:PASSWORD@localhost:9092. KAFKA_CHECK_MS: how often it looks for files whose time is over
# (every five minutes where it is not set). KAFKA_HEAP (512m).
#
# Of several nodes on this machine each is started with a KAFKA_DATA, KAFKA_PORT and KAFKA_CONTROLLER_PORT of its own and
# with KAFKA_NODE, its number, beside KAFKA_VOTERS, all of them: 1@127.0.0.1:9093,2@127.0.0.1:9095,3@127.0.0.1:9097. They
# answer once most of them run, so start them side by side.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
libs=${KAFKA_LIBS:-$root/var/kafka/libs}
data=${KAFKA_DATA:-$root/var/kafka/data}
port=${KAFKA_PORT:-9092}
controller_port=${KAFKA_CONTROLLER_PORT:-9093}
advertised_port=${KAFKA_ADVERTISED_PORT:-$port}
tls=${KAFKA_TLS:-}
node=${KAFKA_NODE:-1}
voters=${KAFKA_VOTERS:-$node@127.0.0.1:$controller_port}
replicas=$(tr ',' '\n' <<<"$voters" | wc -l)
replicas=$((replicas > 3 ? 3 : replicas))
in_sync=$((replicas > 2 ? 2 : 1))
host=127.0.0.1
protocol=PLAINTEXT
[ -z "$tls" ] || { host=localhost; protocol=SASL_SSL; }
properties=$data/server.properties
pid_file=$data/pid
java=(java -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$libs/*")

fail() {
  echo "kafka.sh: $*" >&2
  exit 1
}

fetch() {
  command -v mvn >/dev/null || fail "Maven is missing: install maven and a JDK 17, or use Docker"
  mkdir -p "$libs"
  mvn --quiet --batch-mode --file "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$libs"
}

write_properties() {
  cat >"$properties" <<PROPERTIES
process.roles=broker,controller
node.id=$node
controller.quorum.voters=$voters
listeners=BROKER://$host:$port,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=BROKER://$host:$advertised_port
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
listener.security.protocol.map=BROKER:$protocol,CONTROLLER:PLAINTEXT
log.dirs=$data/log
${KAFKA_CHECK_MS:+log.retention.check.interval.ms=$KAFKA_CHECK_MS}
${KAFKA_CHECK_MS:+log.initial.task.delay.ms=$KAFKA_CHECK_MS}
auto.create.topics.enable=false
num.partitions=1
default.replication.factor=$replicas
min.insync.replicas=$in_sync
offsets.topic.num.partitions=4
offsets.topic.replication.factor=$replicas
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=$replicas
transaction.state.log.min.isr=$in_sync
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=$replicas
share.coordinator.state.topic.min.isr=$in_sync
group.initial.rebalance.delay.ms=0
PROPERTIES
  [ -z "$tls" ] || write_security >>"$properties"
}

# Readable by its owner only, as it holds the password.
write_security() {
  chmod 600 "$properties"
  login="required username=\"$KAFKA_USER\" password=\"$KAFKA_PASSWORD\""
  cat <<PROPERTIES
ssl.keystore.type=PEM
ssl.keystore.location=$tls/server.pem
ssl.truststore.type=PEM
ssl.truststore.location=$tls/ca.pem
sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN
sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512
listener.name.broker.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule $login;
listener.name.broker.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule $login \
  user_$KAFKA_USER="$KAFKA_PASSWORD";
PROPERTIES
}

# The words go through a file: what stands on a command line, everybody on the machine can read.
format() {
  words=$(mktemp)
  # Nodes of one cluster agree on its id without asking each other: it is made of who they are.
  cluster=$(printf '%s' "$voters" | sha256sum | cut -c 1-22)
  printf '%s\n' -Xmx128m -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "\"$libs/*\"" kafka.tools.StorageTool format \
    --cluster-id "$cluster" --config "\"$properties\"" >"$words"
  [ -z "$tls" ] ||
    printf '%s\n' --add-scram "\"SCRAM-SHA-512=[name=$KAFKA_USER,password=$KAFKA_PASSWORD]\"" >>"$words"
  java "@$words" >/dev/null || { rm -f "$words"; fail "its folder $data/log could not be made"; }
  rm -f "$words"
}

running() {
  [ -f "$pid_file" ] && kill -0 "$(cat "$pid_file")" 2>/dev/null
}

answers() {
  (exec 3<>"/dev/tcp/$host/$port") 2>/dev/null
}

start() {
  [ -d "$libs" ] || fail "no broker in $libs: run $0 fetch"
  command -v java >/dev/null || fail "Java is missing: install a JRE 17 or newer"
  running && fail "it runs already (process $(cat "$pid_file"))"
  mkdir -p "$data"
  write_properties
  [ -d "$data/log" ] || format
  nohup "${java[@]}" -Xmx"${KAFKA_HEAP:-512m}" -XX:+UseSerialGC kafka.Kafka "$properties" </dev/null >"$data/out" 2>&1 &
  echo $! >"$pid_file"
  for _ in $(seq 1200); do
    if answers; then
      echo "kafka${tls:+s}://$host:$port"
      return
    fi
    running || fail "it did not start; the end of $data/out: $(tail -n 5 "$data/out")"
    sleep 0.1
  done
  fail "it does not answer; see $data/out"
}

stop() {
  running || { rm -f "$pid_file"; return; }
  pid=$(cat "$pid_file")
  kill "$pid"
  for _ in $(seq 300); do
    running || { rm -f "$pid_file"; return; }
    sleep 0.1
  done
  kill -9 "$pid"
  rm -f "$pid_file"
}

case ${1:-} in
  fetch | start | stop) "$1" ;;
  *) fail "usage: kafka.sh fetch|start|stop" ;;
esac
