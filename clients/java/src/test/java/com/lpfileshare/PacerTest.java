package com.lpfileshare;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.google.protobuf.Any;
import com.google.protobuf.Duration;
import com.google.rpc.Code;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import com.google.rpc.Status;
import io.grpc.StatusException;
import io.grpc.protobuf.StatusProto;
import org.junit.jupiter.api.Test;

class PacerTest {
  @Test
  void errorOfTheServerIsRepeatedIfItHasRetryInfo() {
    assertEquals(Pacer.Verdict.FINAL, Pacer.judge(status(Code.UNAVAILABLE, "lpfileshare", false)));
    assertEquals(
        Pacer.Verdict.REPEAT, Pacer.judge(status(Code.RESOURCE_EXHAUSTED, "lpfileshare", true)));
  }

  @Test
  void errorWithoutErrorInfoIsJudgedByItsCode() {
    assertEquals(Pacer.Verdict.REPEAT, Pacer.judge(status(Code.UNAVAILABLE, "", false)));
    assertEquals(Pacer.Verdict.REPEAT, Pacer.judge(status(Code.UNAVAILABLE, "example.com", false)));
    assertEquals(Pacer.Verdict.REPEAT_ONCE, Pacer.judge(status(Code.INTERNAL, "", false)));
    assertEquals(Pacer.Verdict.FINAL, Pacer.judge(status(Code.UNIMPLEMENTED, "", false)));
  }

  private static StatusException status(Code code, String domain, boolean retry) {
    Status.Builder b = Status.newBuilder().setCode(code.getNumber());
    if (!domain.isEmpty()) {
      b.addDetails(Any.pack(ErrorInfo.newBuilder().setDomain(domain).setReason("X").build()));
    }
    if (retry) {
      b.addDetails(
          Any.pack(
              RetryInfo.newBuilder().setRetryDelay(Duration.newBuilder().setSeconds(1)).build()));
    }
    return StatusProto.toStatusException(b.build());
  }
}
