import type { FastifyDynamicSwaggerOptions } from '@fastify/swagger'
import { jsonSchemaTransform, jsonSchemaTransformObject } from 'fastify-type-provider-zod'
import { REFERENCE_PREFIX } from '#contracts/documented.ts'

type Transform = NonNullable<FastifyDynamicSwaggerOptions['transform']>
type TransformObject = NonNullable<FastifyDynamicSwaggerOptions['transformObject']>

/** An operation of the document: by the schemas of its route, or by what is documented of a route that has none. */
export const operationOf: Transform = (given) => {
  const schema = given.route.config?.documented ?? given.schema
  const operation = jsonSchemaTransform({ ...given, schema })
  giveHeaders(operation.schema?.response, schema?.response)
  return operation
}

/** The transform leaves the headers of answers out. */
function giveHeaders(target: unknown, source: unknown): void {
  if (!isRecord(target) || !isRecord(source)) return
  for (const [status, answer] of Object.entries(source)) {
    const described = target[status]
    if (isRecord(answer) && isRecord(described) && isRecord(answer['headers'])) described['headers'] = answer['headers']
  }
}

/** The whole document, with no schema that nothing refers to, whatever else this process has loaded. */
export const documentOf: TransformObject = (given) => {
  const document = jsonSchemaTransformObject(given)
  spellOut(document)
  if ('components' in document && document.components?.schemas) {
    keepReferenced(document.components.schemas, document.paths)
  }
  return document
}

/** Puts into words of JSON Schema what a schema notes beside it (`src/contracts/documented.ts`). */
function spellOut(node: unknown): void {
  if (typeof node !== 'object' || node === null) return
  for (const each of Object.values(node)) spellOut(each)
  if (!isRecord(node)) return
  const { 'x-or-text': orText, 'x-may-lack': mayLack } = node
  delete node['x-or-text']
  delete node['x-may-lack']
  const { required } = node
  if (Array.isArray(mayLack) && Array.isArray(required)) {
    node['required'] = required.filter((name) => !mayLack.includes(name))
  }
  if (orText !== true) return
  const list = { ...node }
  for (const key of Object.keys(node)) delete node[key]
  node['anyOf'] = [{ type: 'string' }, list]
}

function keepReferenced(schemas: Record<string, unknown>, paths: unknown): void {
  const kept = new Set<string>()
  const open: unknown[] = [paths]
  while (open.length > 0) {
    for (const name of referencesIn(open.pop())) {
      if (!kept.has(name)) open.push(schemas[name])
      kept.add(name)
    }
  }
  for (const name of Object.keys(schemas)) {
    if (!kept.has(name)) delete schemas[name]
  }
}

function referencesIn(node: unknown): readonly string[] {
  if (typeof node !== 'object' || node === null) return []
  return Object.entries(node).flatMap(([key, value]: [string, unknown]) =>
    key === '$ref' && typeof value === 'string' ? [value.replace(REFERENCE_PREFIX, '')] : referencesIn(value),
  )
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
