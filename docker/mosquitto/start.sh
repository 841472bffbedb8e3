#!/bin/sh
# Writes the hashed password file into memory and becomes the broker; the password is never in an argument list or on a disk.
set -eu
umask 077

printf '%s:%s\n' "$MQTT_USER" "$MQTT_PASSWORD" > /run/mosquitto/passwords
mosquitto_passwd -U /run/mosquitto/passwords
exec mosquitto -c /mosquitto/config/mosquitto.conf
