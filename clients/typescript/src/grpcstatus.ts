import { fromBinary } from "@bufbuild/protobuf";
import type { Any } from "@bufbuild/protobuf/wkt";
import { type ServiceError, status } from "@grpc/grpc-js";

import { callFailure, Failure, lost } from "./errors.js";
import { StatusSchema } from "./gen/google/rpc/status_pb.js";

// What grpc-js reports when the server ended the connection because of too many pings (ENHANCE_YOUR_CALM). RESOURCE_EXHAUSTED would
// be final, but it is the connection that broke.
const calm = "Bandwidth exhausted or memory limit exceeded";

/** Returns the failure of a call of grpc-js, with the details of its status. */
export function statusFailure(error: unknown): Failure {
  if (error instanceof Failure) {
    return error;
  }
  if (!isServiceError(error)) {
    throw error;
  }
  const details = statusDetails(error);
  if (error.code === status.RESOURCE_EXHAUSTED && error.details === calm && details.length === 0) {
    return lost(error.details);
  }
  return callFailure(error.code, error.details, details);
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && typeof error.code === "number" && "details" in error;
}

/** Decodes the google.rpc.Status of an error. The errors of grpc-js itself, and those of proxies, have none. */
function statusDetails(error: ServiceError): Any[] {
  const binary = error.metadata.get("grpc-status-details-bin")[0];
  if (!(binary instanceof Uint8Array)) {
    return [];
  }
  try {
    return fromBinary(StatusSchema, binary).details;
  } catch {
    return []; // not from this server
  }
}
