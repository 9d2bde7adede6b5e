import {
  datasetFileSchema,
  datasetListQuerySchema,
  datasetListSchema,
  datasetRowsSchema,
  datasetSchema,
  datasetUploadQuerySchema,
  MAX_DATASET_BYTES,
} from '#contracts/api-dataset.ts'
import { onwardQuerySchema } from '#contracts/api-page.ts'
import { Problem } from '#contracts/codes.ts'
import { getDataset, listDatasets, readRows } from '#db/dataset.ts'
import type { DatasetFormat } from '#domain/dataset-file.ts'
import { z } from 'zod'
import { notFound, projectOf, tenantFor, tenantDb } from './access.ts'
import type { Api, RouteDeps } from './api-deps.ts'
import { storeDataset } from './dataset-upload.ts'
import { answerRepeatablePost } from './idempotency.ts'
import { isNumber, pageAsked, pageFound, pageOf } from './page.ts'
import { projectToList } from './run-read-routes.ts'

const idParams = z.object({ id: z.string() })
const tags = ['Datasets']
/** Files that one process reads at once: each is in memory, some times over. */
const MAX_AT_ONCE = 2

const FORMATS: Readonly<Record<string, DatasetFormat>> = Object.freeze({
  'text/csv': 'csv',
  'application/x-ndjson': 'jsonl',
  'application/jsonl': 'jsonl',
})

/** In a scope of their own: other addresses take JSON only. */
export function datasetUploadRoutes(app: Api, { nowMs }: RouteDeps): void {
  let open = 0
  void app.register(async (own: Api) => {
    own.removeAllContentTypeParsers()
    own.addContentTypeParser(Object.keys(FORMATS), { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
    own.post(
      '/datasets',
      {
        bodyLimit: MAX_DATASET_BYTES,
        config: { access: 'project' },
        schema: {
          tags,
          summary: 'Upload rows: CSV with a line of column names, or JSON lines',
          description:
            'UTF-8, at most 100,000 rows of 64 KiB as JSON. What is wrong is told with its lines, and nothing is stored ' +
            'then. The same file under the same name is the same dataset.',
          querystring: datasetUploadQuerySchema,
          consumes: Object.keys(FORMATS),
          body: datasetFileSchema,
          response: { 201: datasetSchema },
        },
      },
      async (request, reply) => {
        const db = tenantDb(request)
        const { name, format = formatOf(request.headers['content-type']) } = request.query
        const content = request.body
        if (!Buffer.isBuffer(content)) throw new Problem('invalid_request', 'The body is missing: send the file.')
        if (open >= MAX_AT_ONCE) throw new Problem('overloaded', 'Too many files are being read.')
        open += 1
        try {
          return await answerRepeatablePost({ request, reply, schema: datasetSchema }, async () => {
            const file = { name, format, content }
            return { status: 201, body: await storeDataset(db, projectOf(request), { file, nowMs: nowMs() }) }
          })
        } finally {
          open -= 1
        }
      },
    )
  })
}

function formatOf(contentType: string | undefined): DatasetFormat {
  return FORMATS[contentType?.split(';')[0]?.trim().toLowerCase() ?? ''] ?? 'csv'
}

export function datasetReadRoutes(app: Api): void {
  app.get(
    '/datasets',
    {
      config: { access: 'any', problems: ['not_found'] },
      schema: {
        tags,
        summary: 'Datasets, newest first',
        querystring: datasetListQuerySchema,
        response: { 200: datasetListSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { projectId } = request.query
      const scope = await tenantFor(db, request, { noun: 'project', id: projectToList(request, projectId) })
      const { items, nextCursor } = pageOf(request, await listDatasets(db, scope, pageAsked(request)))
      return { datasets: items, nextCursor }
    },
  )

  app.get(
    '/datasets/:id',
    {
      config: { access: 'any' },
      schema: { tags, summary: 'A dataset', params: idParams, response: { 200: datasetSchema } },
    },
    async (request) => {
      const db = tenantDb(request)
      const { id } = request.params
      const dataset = await getDataset(db, await tenantFor(db, request, { noun: 'dataset', id }), id)
      if (!dataset) throw notFound('dataset', id)
      return dataset
    },
  )

  app.get(
    '/datasets/:id/rows',
    {
      config: { access: 'any' },
      schema: {
        tags,
        summary: 'The rows of a dataset',
        params: idParams,
        querystring: onwardQuerySchema,
        response: { 200: datasetRowsSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { id } = request.params
      const scope = await tenantFor(db, request, { noun: 'dataset', id })
      const dataset = await getDataset(db, scope, id)
      if (!dataset) throw notFound('dataset', id)
      const found = await readRows(db, scope, { dataset, page: pageAsked(request, isNumber) })
      const { items, nextCursor } = pageFound(request, found, ({ number }) => String(number))
      const end = request.query.order === 'asc' ? dataset.rows : 1
      return {
        rows: items.map(({ number, row }) => ({ number, values: { ...row } })),
        // How many there are is known: no empty page follows.
        nextCursor: items.at(-1)?.number === end ? null : nextCursor,
      }
    },
  )
}
