import { AnswerTooLong } from './answer-choice.ts'

/** More than any answer, error or list of vectors takes: an upstream that never ends must not take the process along. */
const MAX_BODY_BYTES = 134_217_728

/** What comes after an answer's end: hardly ever more than the mark that says so. */
const MAX_REST_READS = 16
const MAX_REST_MS = 250

/**
 * The `fetch` that the providers' clients are given. It follows no redirect, so that a prompt goes to the host that was
 * configured and nowhere else, and it takes no endless body.
 */
export async function boundedFetch(...[address, options]: Parameters<typeof fetch>): Promise<Response> {
  const response = await fetch(address, { ...options, redirect: 'manual' })
  return response.body === null ? response : new Response(bounded(response.body), response)
}

function bounded(body: ReadableStream<Uint8Array>): ReadableStream<Uint8Array> {
  const reader = body.getReader()
  let bytes = 0
  return new ReadableStream(
    {
      async pull(controller) {
        const { done, value } = await reader.read()
        if (done) return controller.close()
        bytes += value.length
        if (bytes > MAX_BODY_BYTES) throw new AnswerTooLong(`the answer has more than ${MAX_BODY_BYTES} bytes`)
        controller.enqueue(value)
      },
      cancel: () => void readRest(reader),
    },
    { highWaterMark: 0 },
  )
}

/**
 * A client that has heard the answer's end stops reading, mostly a moment before the last byte: a connection that is read to
 * its end serves the next request, one that is cut has to be made again. An abort cuts it at once, by its own signal.
 */
async function readRest(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
  const cut = (): void => void reader.cancel().catch(() => {})
  const timer = setTimeout(cut, MAX_REST_MS)
  try {
    for (let count = 0; count < MAX_REST_READS; count += 1) {
      const { done } = await reader.read()
      if (done) return
    }
    cut()
  } catch {
    // It was cut, by its upstream or by an abort: nobody waits for it.
  } finally {
    clearTimeout(timer)
  }
}
