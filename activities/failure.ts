import { Problem } from '#contracts/codes.ts'
import { isStoreUnavailable } from '#db/database.ts'
import { ApplicationFailure } from '@temporalio/common'

/** Type of the failure by which a worker that shuts down hands its work to another. */
const WORKER_SHUTDOWN = 'worker_shutdown'

/** Runs an activity's work; of what it throws, Temporal retries only an absent store. */
export async function asActivity<Result>(work: () => Promise<Result>): Promise<Result> {
  try {
    return await work()
  } catch (error) {
    throw toFailure(error)
  }
}

/** The work goes on elsewhere: another worker takes it over at once. */
export function workerShutdown(): ApplicationFailure {
  return ApplicationFailure.retryable('the worker is shutting down', WORKER_SHUTDOWN)
}

function toFailure(error: unknown): ApplicationFailure {
  if (error instanceof ApplicationFailure) return error
  const cause = error instanceof Error ? error : new Error(String(error))
  if (isStoreUnavailable(error) || (error instanceof Problem && error.code === 'overloaded')) {
    return ApplicationFailure.create({ message: cause.message, type: 'store_unavailable', cause })
  }
  const type = error instanceof Problem ? error.code : cause.name
  return ApplicationFailure.create({ message: cause.message, type, nonRetryable: true, cause })
}
