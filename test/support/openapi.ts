import { DOCUMENT_PATH } from '#api/documentation.ts'
import type { FastifyInstance } from 'fastify'
import { z } from 'zod'

/** Of an OpenAPI document what is needed to check answers against it. */
const documentSchema = z.object({
  openapi: z.string(),
  paths: z.record(
    z.string(),
    z.record(
      z.string(),
      z.object({
        responses: z.record(
          z.string(),
          z.object({
            description: z.string().optional(),
            content: z.record(z.string(), z.object({ schema: z.record(z.string(), z.unknown()) })).optional(),
          }),
        ),
      }),
    ),
  ),
  components: z.object({ schemas: z.record(z.string(), z.unknown()) }),
})

export interface GivenAnswer {
  readonly method: string
  readonly path: string
  readonly status: number
  readonly type: string | undefined
  readonly body: unknown
}

/** Throws unless the document describes such an answer of this route. Addresses it does not know must answer 404. */
export type AnswerChecker = (answer: GivenAnswer) => void

const checkers = new Map<string, AnswerChecker>()

/**
 * Reads the document that a server serves, once for all servers of this process with the same addresses: what a document
 * says follows from their schemas, which no setting changes, and making it takes longer than most tests.
 */
export async function checkerOf(app: FastifyInstance): Promise<AnswerChecker> {
  const addresses = app.printRoutes({ commonPrefix: false })
  const known = checkers.get(addresses)
  if (known) return known
  const document = await app.inject({ method: 'GET', url: DOCUMENT_PATH })
  const checker = answerChecker(document.json())
  checkers.set(addresses, checker)
  return checker
}

function answerChecker(document: unknown): AnswerChecker {
  const { paths, components } = documentSchema.parse(document)
  const schemaOf = schemaReader(components.schemas)
  const routes = Object.entries(paths).map(([path, operations]) => ({
    pattern: new RegExp(`^${path.replaceAll(/\{\w+\}/g, '[^/]+')}$`),
    operations,
  }))
  return ({ method, path, status, type, body }) => {
    const [address = ''] = path.split('?')
    const operation = routes.find((route) => route.pattern.test(address))?.operations[method.toLowerCase()]
    const name = `${method} ${path} ${status}`
    if (!operation) {
      if (status !== 404) throw new Error(`${name}: the document does not know this address`)
      return
    }
    const response = operation.responses[String(status)]
    if (!response) throw new Error(`${name}: the document does not know this status: ${JSON.stringify(body)}`)
    const content = response.content?.[type?.split(';')[0] ?? '']
    if (!content) {
      if (response.content && type !== undefined) throw new Error(`${name}: the document does not know ${type}`)
      return
    }
    const ofStream = type?.startsWith('text/event-stream') ? contentSchema(content.schema) : undefined
    const isStream = ofStream !== undefined && typeof body === 'string'
    for (const each of isStream ? eventsOf(body) : [body]) {
      const checked = schemaOf(isStream ? ofStream : content.schema).safeParse(each)
      if (!checked.success) throw new Error(`${name}: ${z.prettifyError(checked.error)}\n${JSON.stringify(each)}`)
    }
  }
}

/** What the text of an event's data says, wherever that stands in the schema of an event. */
function contentSchema(node: unknown): unknown {
  if (typeof node !== 'object' || node === null) return undefined
  if ('contentSchema' in node) return node.contentSchema
  return Object.values(node).map(contentSchema).find(Boolean)
}

/** What the events of a stream say. OpenAI ends its own with a word that is no JSON. */
function eventsOf(stream: string): readonly unknown[] {
  return stream
    .split('\n')
    .flatMap((line) => (line.startsWith('data: ') && line !== 'data: [DONE]' ? [JSON.parse(line.slice(6))] : []))
}

/** Reads each schema once. */
function schemaReader(definitions: object): (schema: unknown) => z.ZodType {
  const known = new Map<string, z.ZodType>()
  return (schema) => {
    const text = JSON.stringify(schema)
    const read = known.get(text) ?? z.fromJSONSchema(withDefinitions(JSON.parse(text), definitions))
    known.set(text, read)
    return read
  }
}

/** References point into the components; a schema of its own has them beside it. */
function withDefinitions(schema: object, definitions: object): z.core.JSONSchema.JSONSchema {
  const text = JSON.stringify({ ...schema, $defs: definitions })
  return JSON.parse(text.replaceAll('#/components/schemas/', '#/$defs/'))
}
