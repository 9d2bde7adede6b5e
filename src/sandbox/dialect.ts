import type { WireError } from './errors.ts'
import type { Exchange } from './exchange.ts'
import type { BilledUsage } from './bill.ts'
import type { OutputPiece } from './output.ts'
import type { Body } from './request-fields.ts'
import type { ModelRequest } from './request.ts'

/** One endpoint: how it reads a request, and how it says an answer or an error. */
export interface Dialect {
  readonly name: 'chat' | 'messages' | 'embeddings'
  readonly read: (body: Body) => ModelRequest
  /** Errors that this dialect has other words or another status for. */
  readonly adaptError: (error: WireError) => WireError
  readonly writeError: (error: WireError, id: string) => object
  readonly openAnswer: (exchange: Exchange) => AnswerWriter
  /** The header that carries the provider's id of a request. */
  readonly idHeader: string
  /** What the id of an answer begins with. */
  readonly idPrefix: string
}

/** Says one answer, in one body or as a stream; `usage` is null when a fault leaves it out. */
export interface AnswerWriter {
  readonly body: (usage: BilledUsage | null) => object
  /** Of a stream, before its first piece: the usage of its prompt. */
  readonly start: (usage: BilledUsage | null) => string
  readonly piece: (piece: OutputPiece) => string
  readonly end: (usage: BilledUsage | null) => string
  readonly error: (error: WireError) => string
}
