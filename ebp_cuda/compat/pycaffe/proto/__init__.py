"""caffe.proto."""
