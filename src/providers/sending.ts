import { CLIENT_REQUEST_ID_HEADER } from '#contracts/names.ts'
import { subscribe } from 'node:diagnostics_channel'
import { listOf, recordOf } from './untrusted.ts'

/** Tells whether a request can have reached anybody. */
export interface SendingWatch {
  /** False only where it is proven that not a byte of the request was written. */
  mayHaveBeenSent(): boolean
  /** Must be called when the request is over. */
  release(): void
}

interface Sending {
  isQueued: boolean
  isWritten: boolean
}

/** By client request id. Two requests under one id are told of each other's writing, which errs to the safe side. */
const watched = new Map<string, Set<Sending>>()

/**
 * Watches node's HTTP client (undici) write the request with this client request id. An error's code tells much less: a
 * time-out or a reset while a connection is being made looks like one afterwards, and would be booked as a whole hold
 * that nobody was ever asked to earn.
 */
export function watchSending(clientRequestId: string): SendingWatch {
  const sending: Sending = { isQueued: false, isWritten: false }
  const siblings = watched.get(clientRequestId) ?? new Set()
  watched.set(clientRequestId, siblings.add(sending))
  return {
    mayHaveBeenSent: () => sending.isWritten || !sending.isQueued,
    release() {
      siblings.delete(sending)
      if (siblings.size === 0) watched.delete(clientRequestId)
    },
  }
}

subscribe('undici:request:create', (message) => {
  for (const sending of sendingsOf(message)) sending.isQueued = true
})

/** The first is HTTP/1's alone; the others are told of every request, and come later. */
const WRITING = ['undici:client:sendHeaders', 'undici:request:bodyChunkSent', 'undici:request:bodySent']

for (const channel of WRITING) {
  subscribe(channel, (message) => {
    for (const sending of sendingsOf(message)) sending.isWritten = true
  })
}

function sendingsOf(message: unknown): Iterable<Sending> {
  if (watched.size === 0) return []
  const headers = listOf(recordOf(recordOf(message)?.['request'])?.['headers'])
  const at = headers.findIndex((name, index) => index % 2 === 0 && name === CLIENT_REQUEST_ID_HEADER)
  const id = at === -1 ? undefined : headers[at + 1]
  return (typeof id === 'string' && watched.get(id)) || []
}
