import {
  corpusListQuerySchema,
  corpusListSchema,
  corpusRequestSchema,
  corpusSchema,
  MAX_UPLOAD_BYTES,
  passageSchema,
  type SplitDocument,
  uploadSchema,
} from '#contracts/corpus.ts'
import { addDocuments, createCorpus, getCorpus, getPassage, listCorpora } from '#db/corpus.ts'
import { newId } from '#db/ids.ts'
import { setImmediate } from 'node:timers/promises'
import { z } from 'zod'
import { isId, notFound, projectOf, tenantFor, tenantDb } from './access.ts'
import type { Api, RouteDeps } from './api-deps.ts'
import { answerPost, answerRepeatablePost } from './idempotency.ts'
import { pageAsked, pageOf } from './page.ts'
import { projectToList } from './run-read-routes.ts'

const idParams = z.object({ id: z.string() })
const passageParams = z.object({ id: z.string(), passageId: z.string() })
const uploadedSchema = z.object({ passagesAdded: z.int() }).meta({ id: 'Uploaded' })
const tags = ['Documents']

export function corpusRoutes(app: Api, deps: RouteDeps): void {
  const { nowMs, splitDocument } = deps

  app.post(
    '/corpora',
    {
      config: { access: 'project' },
      schema: { tags, summary: 'Make a corpus', body: corpusRequestSchema, response: { 201: corpusSchema } },
    },
    (request, reply) =>
      answerPost({ request, reply, schema: corpusSchema }, async (trx) => {
        const corpus = { id: newId(nowMs()), name: request.body.name }
        return { status: 201, body: await createCorpus(trx, projectOf(request), corpus) }
      }),
  )

  app.post(
    '/corpora/:id/documents',
    {
      bodyLimit: MAX_UPLOAD_BYTES,
      config: { access: 'project' },
      schema: {
        tags,
        summary: 'Add documents to a corpus',
        description: 'They are cut into passages. What the corpus has already (same source) stays as it is.',
        params: idParams,
        body: uploadSchema,
        response: { 201: uploadedSchema },
      },
    },
    async (request, reply) => {
      const db = tenantDb(request)
      const { id } = request.params
      return answerRepeatablePost({ request, reply, schema: uploadedSchema }, async () => {
        const scope = await tenantFor(db, request, { noun: 'corpus', id })
        const documents: SplitDocument[] = []
        for (const document of request.body.documents) {
          documents.push(splitDocument(document))
          await setImmediate() // others are answered between two documents
        }
        const passagesAdded = await addDocuments(db, scope, { corpusId: id, documents })
        return { status: 201, body: { passagesAdded } }
      })
    },
  )
}

export function corpusReadRoutes(app: Api): void {
  app.get(
    '/corpora',
    {
      config: { access: 'any', problems: ['not_found'] },
      schema: {
        tags,
        summary: 'Corpora of a project, newest first',
        querystring: corpusListQuerySchema,
        response: { 200: corpusListSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { projectId } = request.query
      const scope = await tenantFor(db, request, { noun: 'project', id: projectToList(request, projectId) })
      const { items, nextCursor } = pageOf(request, await listCorpora(db, scope, pageAsked(request)))
      return { corpora: items, nextCursor }
    },
  )

  app.get(
    '/corpora/:id',
    {
      config: { access: 'any' },
      schema: { tags, summary: 'A corpus', params: idParams, response: { 200: corpusSchema } },
    },
    async (request) => {
      const db = tenantDb(request)
      const { id } = request.params
      const corpus = await getCorpus(db, await tenantFor(db, request, { noun: 'corpus', id }), id)
      if (!corpus) throw notFound('corpus', id)
      return corpus
    },
  )
}

export function passageRoutes(app: Api): void {
  app.get(
    '/corpora/:id/passages/:passageId',
    {
      config: { access: 'any' },
      schema: {
        tags,
        summary: 'A passage, as a citation names it',
        params: passageParams,
        response: { 200: passageSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { id, passageId } = request.params
      const scope = await tenantFor(db, request, { noun: 'corpus', id })
      const passage = isId(passageId) ? await getPassage(db, scope, { corpusId: id, passageId }) : undefined
      if (!passage) throw notFound('passage', passageId)
      return passage
    },
  )
}
