import { NOTHING_RECEIVED, type ProviderResult } from './provider.ts'

export type Failure = Exclude<ProviderResult, { outcome: 'answered' }>

/** Longest detail of a provider's error that is kept, in characters. */
const MAX_DETAIL = 500

/** An attempt without an answer; sent, with nothing received, unless said otherwise. */
export function failure(outcome: Failure['outcome'], detail: string, known: Partial<Failure> = {}): Failure {
  return {
    sent: true,
    httpStatus: null,
    retryAfterMs: null,
    received: NOTHING_RECEIVED,
    ...known,
    outcome,
    detail: detail.slice(0, MAX_DETAIL),
  }
}
